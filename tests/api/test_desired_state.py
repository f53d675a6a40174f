"""Desired state on its way down, reports and logs on their way up: real server, real WebSocket, real database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from minuet.control.planes import link, log, session, store
from minuet.control.planes.model import DataPlane
from minuet.infra.database import Transaction
from minuet.kernel.errors import Exhausted, MinuetError, Unavailable
from minuet.kernel.retry import Backoff
from minuet.protocol.desired import Revision, Tombstone
from minuet.protocol.frames import (
    MAX_FRAME_BYTES,
    Acknowledge,
    CancelQuery,
    Desired,
    Hello,
    LogAnswer,
    LogLine,
    LogQuery,
    Observed,
    Welcome,
    parse_frame,
)
from minuet.protocol.observed import ObservedWorkload, PlaneReport
from minuet.protocol.sealing import new_sealing_key, sealing_public_key
from minuet.protocol.signing import open_revision
from minuet.server.wiring import ControlPlane
from tests.given import planes, postgres, servers

KEY = sealing_public_key(new_sealing_key())
REPORT = PlaneReport(
    isolation="sandbox", gateway_ready=True, gateway_url="http://127.0.0.1:8480", agent_version="0.1.0"
)
SECONDS = 10


@dataclass
class Sink:
    """What reached the slice above."""

    workloads: list[ObservedWorkload] = field(default_factory=list)
    links: list[bool] = field(default_factory=list)

    async def observed(
        self, tx: Transaction, plane: DataPlane, workloads: tuple[ObservedWorkload, ...], *, full: bool
    ) -> None:
        self.workloads += workloads

    async def link_changed(self, tx: Transaction, plane: DataPlane, *, connected: bool) -> None:
        self.links.append(connected)


@dataclass
class Fixture:
    plane: ControlPlane
    data: Path
    id: str
    sink: Sink

    async def append(self, *changes: Any) -> log.Position:
        return await self.plane.database.run(
            lambda tx: self.plane.links.desired.append(tx, self.id, changes, organization_id="org_1")
        )

    async def row(self) -> DataPlane:
        async with self.plane.database.reading() as tx:
            found = await store.plane_by_id(tx, self.id)
        assert found is not None
        return found

    @contextlib.asynccontextmanager
    async def agent(self, epoch: int = 1, revision: int = 0, digest: str | None = None) -> AsyncIterator[Agent]:
        token = (self.data / "credentials" / "agent.token").read_text().strip()
        address = f"ws://127.0.0.1:{self.plane.settings.listen.port}/api/v1/planes/default/link"
        headers = {"Authorization": f"Bearer {token}"}
        async with websockets.connect(
            address, additional_headers=headers, proxy=None, max_size=MAX_FRAME_BYTES
        ) as connection:
            greeting = Hello(
                plane="default", epoch=epoch, revision=revision, digest=digest, sealing_key=KEY, report=REPORT
            )
            await connection.send(greeting.wire())
            agent = Agent(connection, "")
            welcome = await agent.frame()
            assert isinstance(welcome, Welcome)
            agent.key = welcome.signing_key
            yield agent


@dataclass
class Agent:
    link: ClientConnection
    key: str
    sequence: int = 0

    async def frame(self) -> Any:
        return parse_frame(await asyncio.wait_for(self.link.recv(), SECONDS))

    async def revision(self, *, acknowledge: bool = True) -> Revision:
        frame = await self.frame()
        assert isinstance(frame, Desired)
        revision = open_revision(self.key, frame.signed)
        if acknowledge:
            await self.link.send(Acknowledge(epoch=revision.epoch, revision=revision.revision).wire())
        return revision

    async def refuse(self, revision: Revision, code: str, message: str, held: int = 0) -> None:
        refusal = Acknowledge(
            epoch=1 if held else 0,
            revision=held,
            refused=code,
            refused_epoch=revision.epoch,
            refused_revision=revision.revision,
            message=message,
        )
        await self.link.send(refusal.wire())

    async def report(self, *workloads: ObservedWorkload, full: bool = False) -> None:
        self.sequence += 1
        await self.link.send(Observed(sequence=self.sequence, workloads=workloads, full=full).wire())


@pytest.fixture(scope="module")
def prefix() -> Any:
    if not postgres.is_installed():
        yield None
        return
    with postgres.cluster() as found:
        yield found


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def world(request: pytest.FixtureRequest, tmp_path: Path, prefix: str | None) -> AsyncIterator[Fixture]:
    url = f"sqlite:///{tmp_path / 'minuet.db'}"
    if request.param == "postgres":
        if prefix is None:
            pytest.skip("PostgreSQL is not installed")
        url = postgres.create_database(prefix, servers.unique("db"))
    async with planes.served(tmp_path / "server", url, servers.free_port()) as plane:
        async with plane.database.reading() as tx:
            row = await store.plane_by_name(tx, "default")
        assert row is not None
        sink = Sink()
        plane.links.sinks.append(sink)
        yield Fixture(plane, tmp_path / "server", row.id, sink)


async def until(condition: Any) -> None:
    async with asyncio.timeout(SECONDS):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_an_append_is_pushed_at_once_signed_and_acknowledged(world: Fixture) -> None:
    async with world.agent() as agent:
        started = asyncio.get_running_loop().time()
        await world.append(planes.workload("cmp/env"))
        revision = await agent.revision()
        assert asyncio.get_running_loop().time() - started < 1
        assert (revision.epoch, revision.revision, revision.previous, revision.snapshot) == (1, 1, 0, False)
        assert [change.key for change in revision.changes] == ["cmp/env"]

        async def is_held() -> bool:
            return (await world.row()).acknowledged_revision == 1

        await until(is_held)


async def test_an_agent_resumes_where_it_was(world: Fixture) -> None:
    for generation in (1, 2, 3):
        await world.append(planes.workload("cmp/env", generation))
    async with world.agent(revision=1) as agent:
        assert [(await agent.revision()).revision for _ in range(2)] == [2, 3]
    async with world.agent(revision=3) as agent:
        await world.append(planes.workload("cmp/env", 4))
        assert (await agent.revision()).revision == 4


async def test_an_agent_of_another_epoch_gets_everything_as_one_snapshot(world: Fixture) -> None:
    await world.append(planes.workload("a/env"), planes.workload("b/env"))
    await world.append(Tombstone(key="b/env", confirmed_by="req"))
    async with world.agent(epoch=0, revision=7) as agent:
        revision = await agent.revision()
    assert revision.snapshot
    assert [(change.kind, change.key) for change in revision.changes] == [("workload", "a/env"), ("tombstone", "b/env")]


async def test_an_agent_too_far_behind_gets_a_snapshot(world: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "KEEP_REVISIONS", 2)
    for generation in range(1, 6):
        await world.append(planes.workload("cmp/env", generation))
    async with world.agent(revision=1) as agent:
        revision = await agent.revision()
    assert (revision.snapshot, revision.revision) == (True, 5)
    async with world.agent(revision=4) as agent:
        assert not (await agent.revision()).snapshot


async def test_a_refused_revision_is_told_and_followed_by_a_snapshot(world: Fixture) -> None:
    async with world.agent() as agent:
        await world.append(planes.workload("cmp/env"))
        revision = await agent.revision(acknowledge=False)
        await agent.refuse(revision, "DesiredStateInvalid", "too odd")

        async def is_told() -> bool:
            row = await world.row()
            return (row.trouble, row.trouble_reason) == ("revision 1 was refused: too odd", "DesiredStateInvalid")

        await until(is_told)
        await world.append(planes.workload("cmp/env", 2))
        following = await agent.revision()
        assert (following.snapshot, following.revision) == (True, 2)

        async def is_well() -> bool:
            return (await world.row()).trouble is None

        await until(is_well)


async def test_what_a_full_disk_refused_is_sent_again_until_it_is_taken(
    world: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "REPEAT", Backoff(base=0.02, cap=0.1))
    async with world.agent() as agent:
        await world.append(planes.workload("cmp/env"))
        for _ in range(3):
            revision = await agent.revision(acknowledge=False)
            await agent.refuse(revision, "InventoryUnwritable", "the disk is full")

        async def is_told() -> bool:
            return (await world.row()).trouble_reason == "DiskFull"

        await until(is_told)
        again = await agent.revision()
        assert (again.snapshot, again.revision) == (True, 1)

        async def is_well() -> bool:
            row = await world.row()
            return (row.trouble, row.trouble_reason, row.acknowledged_revision) == (None, None, 1)

        await until(is_well)
        await world.append(planes.workload("cmp/env", 2))
        assert (await agent.revision()).revision == 2


async def test_a_gap_that_follows_from_a_refusal_does_not_hide_it(
    world: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.agent() as agent:
        for generation in (1, 2):
            await world.append(planes.workload("cmp/env", generation))
        first, second = [await agent.revision(acknowledge=False) for _ in range(2)]
        await agent.refuse(first, "InventoryUnwritable", "the disk is full")
        await agent.refuse(second, "RevisionGap", "a revision after 0 is missing")
        whole = await agent.revision(acknowledge=False)
        assert whole.snapshot
        row = await world.row()
        assert (row.trouble, row.trouble_reason) == ("revision 1 was refused: the disk is full", "DiskFull")


# Two histories.


async def _diverged(world: Fixture) -> bool:
    return (await world.row()).is_diverged


async def _gets_nothing(agent: Agent) -> bool:
    try:
        await asyncio.wait_for(agent.link.recv(), 0.3)
    except TimeoutError:
        return True
    return False


async def test_an_agent_ahead_of_a_restored_log_gets_nothing_when_that_has_grown_past_it(world: Fixture) -> None:
    for generation in (1, 2, 3):
        await world.append(planes.workload("cmp/env", generation))
    async with world.agent(revision=3):
        pass
    async with world.agent(revision=5) as agent:
        row = await world.row()
        assert (row.is_diverged, row.trouble_reason, row.acknowledged_revision) == (True, "PlaneDiverged", 3)
        for generation in (4, 5, 6):
            await world.append(planes.workload("cmp/env", generation))
        assert await _gets_nothing(agent)
    async with world.agent(revision=5) as agent:
        assert await _gets_nothing(agent)
        row = await world.row()
        assert (row.is_diverged, row.acknowledged_revision) == (True, 3)
        assert "newer than 1.3" in (row.trouble or "")
        await world.plane.database.run(lambda tx: world.plane.links.desired.begin_epoch(tx, world.id))
        revision = await agent.revision()
        assert (revision.epoch, revision.snapshot) == (2, True)

        async def is_well() -> bool:
            row = await world.row()
            return (row.trouble, row.is_diverged, row.acknowledged_epoch) == (None, False, 2)

        await until(is_well)


async def test_an_agent_with_another_revision_of_the_same_number_is_told_by_its_digest(world: Fixture) -> None:
    for generation in (1, 2):
        await world.append(planes.workload("cmp/env", generation))
    async with world.agent() as agent:
        first, second = [await agent.revision() for _ in range(2)]
    assert first.digest is not None
    assert second.previous_digest == first.digest
    async with world.agent(revision=1, digest=first.digest) as agent:
        assert (await agent.revision()).revision == 2
        assert not await _diverged(world)
    async with world.agent(revision=1, digest=second.digest) as agent:
        assert await _gets_nothing(agent)
        assert await _diverged(world)
    async with world.agent(epoch=0) as agent:
        assert (await agent.revision()).snapshot
        assert not await _diverged(world)


async def test_a_revision_refused_for_another_history_ends_sending(world: Fixture) -> None:
    await world.append(planes.workload("cmp/env"))
    async with world.agent() as agent:
        await agent.refuse(await agent.revision(acknowledge=False), "LogDiverged", "another log", held=1)
        await until(lambda: _diverged(world))
        await world.append(planes.workload("cmp/env", 2))
        assert await _gets_nothing(agent)


async def test_a_snapshot_names_the_log_as_the_deltas_do(world: Fixture) -> None:
    for generation in (1, 2):
        await world.append(planes.workload("cmp/env", generation))
    async with world.agent(revision=1) as agent:
        delta = await agent.revision()
    async with world.agent(epoch=0) as agent:
        whole = await agent.revision()
    assert whole.snapshot
    assert whole.digest == delta.digest


async def test_no_more_than_a_window_is_sent_without_acknowledgement(world: Fixture) -> None:
    async with world.agent() as agent:
        for generation in range(1, 13):
            await world.append(planes.workload("cmp/env", generation))
        for _ in range(8):
            await agent.revision(acknowledge=False)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(agent.link.recv(), 0.5)
        await agent.link.send(Acknowledge(epoch=1, revision=8).wire())
        assert [(await agent.revision()).revision for _ in range(4)] == [9, 10, 11, 12]


async def test_appends_at_the_same_time_make_revisions_without_gap(world: Fixture) -> None:
    async with world.agent() as agent:

        async def patient(number: int) -> None:
            while True:
                try:
                    await world.append(planes.workload(f"c{number}/env"))
                    return
                except MinuetError:
                    continue

        await asyncio.gather(*(patient(number) for number in range(12)))
        revisions = [await agent.revision() for _ in range(12)]
    assert [revision.revision for revision in revisions] == list(range(1, 13))
    assert {revision.changes[0].key for revision in revisions} == {f"c{number}/env" for number in range(12)}


async def test_a_report_about_a_workload_of_no_document_is_refused(world: Fixture) -> None:
    await world.append(planes.workload("own/env"))
    with world.plane.bus.subscribe(link.STRANGE_REPORT) as events:
        async with world.agent(revision=1) as agent:
            own = ObservedWorkload(key="own/env", generation=1)
            await agent.report(ObservedWorkload(key="strange/env", generation=1), own)
            event = await asyncio.wait_for(anext(events), SECONDS)
    assert event.data == {"keys": ["strange/env"]}
    assert [workload.key for workload in world.sink.workloads] == ["own/env"]
    assert world.sink.links[0] is True


async def test_a_removed_workload_is_forgotten_when_it_is_reported_gone(world: Fixture) -> None:
    await world.append(planes.workload("own/env"))
    await world.append(Tombstone(key="own/env", confirmed_by="req"))
    async with world.agent(revision=2) as agent:
        await agent.report(ObservedWorkload(key="own/env", generation=1, removed=True))

        async def is_forgotten() -> bool:
            async with world.plane.database.reading() as tx:
                return not await log.known_keys(tx, world.id, ["own/env"])

        await until(is_forgotten)


async def test_a_report_of_a_fenced_session_is_not_recorded(world: Fixture) -> None:
    await world.append(planes.workload("own/env"))
    async with world.agent(revision=1) as agent:
        async with world.plane.database.transaction() as tx:
            row = await store.plane_by_id(tx, world.id)
            assert row is not None
            await store.change_plane(tx, world.id, session=row.session + 1)
        await agent.report(ObservedWorkload(key="own/env", generation=1))
        with pytest.raises(websockets.ConnectionClosed) as caught:
            await asyncio.wait_for(agent.link.recv(), SECONDS)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 4409
    assert world.sink.workloads == []


async def test_logs_are_asked_for_passed_on_and_cancelled(world: Fixture) -> None:
    async with world.agent() as agent:
        lines = world.plane.links.logs(world.id, LogQuery(id="", key="own/env", tail=10, follow=True))
        first = asyncio.ensure_future(anext(lines))
        query = await agent.frame()
        assert isinstance(query, LogQuery)
        assert (query.key, query.tail, query.follow) == ("own/env", 10, True)
        line = LogLine(time="2026-11-24T00:00:00Z", stream="stdout", instance="i1", message="hello")
        await agent.link.send(LogAnswer(id="somebody-else", lines=(line,)).wire())
        await agent.link.send(LogAnswer(id=query.id, lines=(line,)).wire())
        assert (await asyncio.wait_for(first, SECONDS)).message == "hello"
        await lines.aclose()
        cancel = await agent.frame()
        assert isinstance(cancel, CancelQuery)
        assert cancel.id == query.id


async def test_a_slow_reader_of_logs_is_told_what_it_missed(world: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from minuet.control.planes import queries

    monkeypatch.setattr(queries, "MAX_LINES", 3)
    async with world.agent() as agent:
        lines = world.plane.links.logs(world.id, LogQuery(id="", key="own/env"))
        first = asyncio.ensure_future(anext(lines))
        query = await agent.frame()
        sent = tuple(
            LogLine(time="2026-11-24T00:00:00Z", stream="stdout", instance="i", message=str(n)) for n in range(10)
        )
        await agent.link.send(LogAnswer(id=query.id, lines=sent, done=True).wire())
        seen = [await asyncio.wait_for(first, SECONDS), *[line async for line in lines]]
    assert [line.message for line in seen] == ["7", "8", "9"]
    assert [line.dropped for line in seen] == [7, 0, 0]


async def test_readers_of_logs_learn_that_the_link_went_down(world: Fixture) -> None:
    async with world.agent() as agent:
        lines = world.plane.links.logs(world.id, LogQuery(id="", key="own/env", follow=True))
        first = asyncio.ensure_future(anext(lines))
        await agent.frame()
        agent.link.transport.abort()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(first, SECONDS)
    with pytest.raises(Unavailable) as caught:
        world.plane.links.logs(world.id, LogQuery(id="", key="own/env"))
    assert caught.value.code == "DataPlaneNotConnected"

    async def is_down() -> bool:
        return world.sink.links[-1] is False

    await until(is_down)


async def test_readers_of_logs_are_bounded(world: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from minuet.control.planes import queries

    monkeypatch.setattr(queries, "MAX_READINGS", 1)
    async with world.agent() as agent:
        one = world.plane.links.logs(world.id, LogQuery(id="", key="own/env", follow=True))
        first = asyncio.ensure_future(anext(one))
        await agent.frame()
        with pytest.raises(Exhausted):
            await anext(world.plane.links.logs(world.id, LogQuery(id="", key="own/env")))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_a_full_data_plane_refuses_more(world: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MAX_DOCUMENTS", 2)
    await world.append(planes.workload("a/env"), planes.workload("b/env"))
    with pytest.raises(Exhausted):
        await world.append(planes.workload("c/env"))
    assert (await world.row()).revision == 1


async def test_a_snapshot_of_a_full_plane_fits_into_a_frame(world: Fixture) -> None:
    def big(count: int) -> Any:
        return planes.workload("a/env", environment_variables=({"name": "A", "value": '"' * count},))

    with pytest.raises(Exhausted):
        await world.append(big(MAX_FRAME_BYTES // 4))
    await world.append(big(MAX_FRAME_BYTES // 4 - 100_000))
    async with world.agent(epoch=0) as agent:
        assert (await agent.revision()).snapshot
