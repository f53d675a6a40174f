"""The server's side of the agents' links: who is connected here, and what slices above do with them.

`Links` is made once per server process. Delivery registers an `ObservedSink`;
reports reach it in the transaction that checked that the session is still the
newest one of its plane. `session.py` carries one connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

from minuet.control.planes import log, store
from minuet.control.planes.log import DesiredLog, Position
from minuet.control.planes.model import DataPlane
from minuet.infra import telemetry
from minuet.infra.database import Database, Transaction
from minuet.infra.events import Event
from minuet.infra.outbox import Bus
from minuet.kernel.clock import Clock
from minuet.kernel.errors import Conflict, MinuetError, NotFound, Unavailable
from minuet.protocol.frames import Acknowledge, Hello, LogLine, LogQuery
from minuet.protocol.observed import ObservedWorkload, PlaneReport

SESSION_STARTED = "plane.connected"
SESSION_ENDED = "plane.disconnected"
ACKNOWLEDGED = "plane.acknowledged"
REFUSED = "plane.refused"
STRANGE_REPORT = "plane.strange-report"
"""Events about a plane; their subject is its id."""

GAP, DIVERGED, UNWRITABLE = "RevisionGap", "LogDiverged", "InventoryUnwritable"
"""Why an agent refuses a revision, where that is more than that it cannot read it."""

RENEW_SECONDS = 30.0
"""How often a replica says that it still holds its links; a third of `model.LOST_AFTER`."""

_log = telemetry.logger(__name__)


class ObservedSink(Protocol):
    """What a slice above does with news of a data plane, in the transaction they are recorded in."""

    async def observed(
        self, tx: Transaction, plane: DataPlane, workloads: tuple[ObservedWorkload, ...], *, full: bool
    ) -> None:
        """Takes what the agent saw; with `full`, workloads that are not named do not exist there."""

    async def link_changed(self, tx: Transaction, plane: DataPlane, *, connected: bool) -> None:
        """Takes that nothing is known of the plane from now on, or that something is again."""


class Connection(Protocol):
    """One open session, as `Links` sees it."""

    plane_id: str
    number: int

    def wake(self) -> None:
        """Tells it that the log may have grown."""

    def supersede(self) -> None:
        """Tells it that a newer session of the same plane exists."""

    def read_logs(self, query: LogQuery) -> AsyncIterator[LogLine]:
        """Asks the agent."""


class Links:
    """The sessions of this process, and what is recorded of all of them."""

    def __init__(self, database: Database, bus: Bus, desired: DesiredLog, clock: Clock) -> None:
        self.database = database
        self.desired = desired
        self.sinks: list[ObservedSink] = []
        self._bus = bus
        self._clock = clock
        self._connections: dict[str, Connection] = {}

    def holds(self, plane_id: str) -> bool:
        """Whether the plane's link ends in this process."""
        return plane_id in self._connections

    def logs(self, plane_id: str, query: LogQuery) -> AsyncIterator[LogLine]:
        """Returns lines of a workload as its agent sends them; raises `Unavailable` without a link."""
        connection = self._connections.get(plane_id)
        if connection is None:
            raise Unavailable(
                "the data plane is not connected, so its logs cannot be read now",
                code="DataPlaneNotConnected",
                hint="the application goes on running; try again when the data plane is back",
            )
        return connection.read_logs(query)

    async def run(self) -> None:
        """Wakes sessions when their log grows, here or in another replica; until cancelled."""
        with self._bus.subscribe(log.APPENDED, SESSION_STARTED) as events:
            renewing = asyncio.create_task(self._renew())
            try:
                async for event in events:
                    self._pass_on(event)
            finally:
                renewing.cancel()

    def _pass_on(self, event: Event) -> None:
        connection = self._connections.get(event.subject)
        if connection is None:
            return
        if event.kind == log.APPENDED:
            connection.wake()
        elif event.data["session"] > connection.number:
            connection.supersede()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with contextlib.suppress(MinuetError):
                await self.database.run(self._mark_seen)

    async def _mark_seen(self, tx: Transaction) -> None:
        for connection in tuple(self._connections.values()):
            plane = await store.plane_by_id(tx, connection.plane_id)
            if plane is not None and plane.session == connection.number:
                await store.change_plane(tx, plane.id, last_seen=self._clock.now())

    async def admit(self, plane_id: str, hello: Hello) -> tuple[int, Position]:
        """Records a new session, which fences all older ones; returns its number and what the agent holds."""

        async def work(tx: Transaction) -> int:
            plane = await _plane(tx, plane_id)
            now = self._clock.now()
            was_connected = plane.is_connected(now)
            diverged = await _divergence(tx, plane, hello)
            values = (
                _reported(hello.report)
                | {
                    "session": plane.session + 1,
                    "sealing_key": hello.sealing_key,
                    "connected": True,
                    "since": plane.since if was_connected else now,
                    "last_seen": now,
                }
                | (diverged if diverged is not None else _holds(hello.epoch, hello.revision))
            )
            await store.change_plane(tx, plane_id, **values)
            data = {"session": plane.session + 1, "key_changed": hello.sealing_key != plane.sealing_key}
            tx.emit(Event(SESSION_STARTED, plane.organization_id, plane_id, data))
            await self._tell(tx, plane_id, connected=True)
            return plane.session + 1

        number = await self.database.run(work)
        return number, Position(hello.epoch, hello.revision)

    def register(self, connection: Connection) -> None:
        """Makes a session the one of its plane in this process; an older one here ends at once."""
        older = self._connections.get(connection.plane_id)
        if older is not None and older.number > connection.number:
            connection.supersede()
            return
        self._connections[connection.plane_id] = connection
        if older is not None:
            older.supersede()

    async def leave(self, connection: Connection) -> None:
        """Records that a session ended, unless a newer one took over."""
        if self._connections.get(connection.plane_id) is connection:
            del self._connections[connection.plane_id]

        async def work(tx: Transaction) -> None:
            plane = await _plane(tx, connection.plane_id)
            if plane.session != connection.number:
                return
            now = self._clock.now()
            await store.change_plane(tx, plane.id, connected=False, since=now, last_seen=now)
            tx.emit(Event(SESSION_ENDED, plane.organization_id, plane.id, {"session": plane.session}))
            await self._tell(tx, plane.id, connected=False)

        await self.database.run(work)

    async def acknowledge(self, connection: Connection, frame: Acknowledge) -> None:
        """Records what the agent holds, or why it refused a revision."""

        async def work(tx: Transaction) -> None:
            plane = await self._fenced(tx, connection)
            data: dict[str, object] = {"epoch": frame.epoch, "revision": frame.revision}
            if frame.refused is not None:
                await store.change_plane(tx, plane.id, **_refusal(plane, frame))
                tx.emit(Event(REFUSED, plane.organization_id, plane.id, data | {"reason": frame.refused}))
                return
            if plane.is_diverged:
                return
            await store.change_plane(tx, plane.id, **_holds(frame.epoch, frame.revision))
            tx.emit(Event(ACKNOWLEDGED, plane.organization_id, plane.id, data))

        await self.database.run(work)

    async def observe(
        self, connection: Connection, workloads: tuple[ObservedWorkload, ...], report: PlaneReport | None, *, full: bool
    ) -> None:
        """Records a report; what it says of workloads that are not of this plane is refused."""

        async def work(tx: Transaction) -> None:
            plane = await self._fenced(tx, connection)
            if report is not None and _reported(report) != _known(plane):
                await store.change_plane(tx, plane.id, **_reported(report))
            own = await log.known_keys(tx, plane.id, [workload.key for workload in workloads])
            strange = [workload.key for workload in workloads if workload.key not in own]
            if strange:
                _log.warning("strange_report", plane=plane.name, count=len(strange), first=strange[0][:200])
                tx.emit(Event(STRANGE_REPORT, plane.organization_id, plane.id, {"keys": strange[:10]}))
            accepted = tuple(workload for workload in workloads if workload.key in own)
            for sink in self.sinks:
                await sink.observed(tx, plane, accepted, full=full)
            await log.forget_removed(tx, plane.id, [workload.key for workload in accepted if workload.removed])

        await self.database.run(work)

    async def _fenced(self, tx: Transaction, connection: Connection) -> DataPlane:
        plane = await _plane(tx, connection.plane_id)
        if plane.session != connection.number:
            raise Conflict("a newer session of this data plane exists", code="Superseded")
        return plane

    async def _tell(self, tx: Transaction, plane_id: str, *, connected: bool) -> None:
        plane = await _plane(tx, plane_id)
        for sink in self.sinks:
            await sink.link_changed(tx, plane, connected=connected)


async def _plane(tx: Transaction, plane_id: str) -> DataPlane:
    plane = await store.plane_by_id(tx, plane_id)
    if plane is None:
        raise NotFound("there is no such data plane", code="DataPlaneNotFound")
    return plane


def _holds(epoch: int, revision: int) -> dict[str, object]:
    """The columns of an agent that holds a place in our log; nothing is wrong with it."""
    held = {"acknowledged_epoch": epoch, "acknowledged_revision": revision}
    return {**held, "trouble": None, "trouble_reason": None, "diverged_epoch": None}


async def _divergence(tx: Transaction, plane: DataPlane, hello: Hello) -> dict[str, object] | None:
    """The columns of an agent whose log is another one than ours; nothing if it may be the same.

    What it holds says nothing of our log, so that what was acknowledged stays.
    Numbers alone do not tell: our log may have grown past the agent's since it
    was restored. Once seen, it stays until an epoch begins.
    """
    ours, theirs = (plane.epoch, plane.revision), (hello.epoch, hello.revision)
    known = await log.digest_at(tx, plane.id, Position(hello.epoch, hello.revision))
    if theirs > ours:
        why = f"holds revision {hello.epoch}.{hello.revision}, newer than {plane.epoch}.{plane.revision} here"
    elif hello.digest is not None and known is not None and hello.digest != known:
        why = f"holds another revision {hello.epoch}.{hello.revision} than the one here"
    elif plane.diverged_epoch is not None and hello.epoch == plane.diverged_epoch:
        return {}
    else:
        return None
    return _diverged(why, hello.epoch)


def _diverged(why: str, epoch: int) -> dict[str, object]:
    advice = "if the control plane was restored from a backup, an operator begins a new epoch"
    return {
        "trouble": f"the agent {why}; {advice}",
        "trouble_reason": "PlaneDiverged",
        "diverged_epoch": epoch,
    }


def _refusal(plane: DataPlane, frame: Acknowledge) -> dict[str, object]:
    """The columns of an agent that refused a revision; a gap only follows from what it refused before."""
    if plane.is_diverged or (frame.refused == GAP and plane.trouble is not None):
        return {"trouble": plane.trouble}
    if frame.refused == DIVERGED:
        return _diverged(f"holds another log up to revision {frame.epoch}.{frame.revision}", frame.epoch)
    named = "a revision" if frame.refused_revision is None else f"revision {frame.refused_revision}"
    trouble = f"{named} was refused: {frame.message or frame.refused}"[:1000]
    reason = "DiskFull" if frame.refused == UNWRITABLE else "DesiredStateInvalid"
    return {"trouble": trouble, "trouble_reason": reason}


def _reported(report: PlaneReport) -> dict[str, object]:
    """The columns that follow from what the agent says of its host."""
    return {
        "isolation": report.isolation[:40],
        "gateway_url": report.gateway_url[:300],
        "gateway_ready": report.gateway_ready,
        "agent_version": report.agent_version[:60],
        "warnings": _texts(report.warnings),
    }


def _known(plane: DataPlane) -> dict[str, object]:
    return {
        "isolation": plane.isolation,
        "gateway_url": plane.gateway_url,
        "gateway_ready": plane.gateway_ready,
        "agent_version": plane.agent_version,
        "warnings": _texts(plane.warnings),
    }


def _texts(warnings: tuple[str, ...]) -> str:
    return store.texts([warning[:500] for warning in warnings[:20]])
