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
            values = _reported(hello.report) | {
                "session": plane.session + 1,
                "sealing_key": hello.sealing_key,
                "connected": True,
                "since": plane.since if was_connected else now,
                "last_seen": now,
                "acknowledged_epoch": hello.epoch,
                "acknowledged_revision": hello.revision,
                "trouble": _ahead(plane, hello),
            }
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
            data = {"epoch": frame.epoch, "revision": frame.revision}
            if frame.refused is not None:
                trouble = f"revision {frame.revision} was refused: {frame.message or frame.refused}"[:1000]
                await store.change_plane(tx, plane.id, trouble=trouble)
                tx.emit(Event(REFUSED, plane.organization_id, plane.id, data | {"reason": frame.refused}))
                return
            held = {"acknowledged_epoch": frame.epoch, "acknowledged_revision": frame.revision}
            await store.change_plane(tx, plane.id, trouble=None, **held)
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


def _ahead(plane: DataPlane, hello: Hello) -> str | None:
    if (hello.epoch, hello.revision) <= (plane.epoch, plane.revision):
        return None
    return (
        f"the agent holds revision {hello.epoch}.{hello.revision}, newer than {plane.epoch}.{plane.revision} here; "
        "if the control plane was restored from a backup, an operator begins a new epoch"
    )


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
