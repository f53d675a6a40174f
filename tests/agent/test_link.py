"""The link against a real WebSocket server that signs what it sends."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from minuet.agent.inventory import Inventory, Position
from minuet.agent.link import Link, link_uri
from minuet.agent.logs import LogStore
from minuet.agent.observe import Observations
from minuet.agent.settings import AgentSettings
from minuet.kernel.clock import SystemClock
from minuet.kernel.errors import Invalid
from minuet.protocol import frames
from minuet.protocol.desired import Revision
from minuet.protocol.observed import PlaneReport
from minuet.protocol.signing import Signer, new_signing_key, sign_revision
from tests.given.documents import workload
from tests.given.plane import SECONDS, until
from tests.given.platform import free_port

PORT = free_port()
LOGS = "c_e"


class Session:
    """The server's end of one connection, after the greeting."""

    def __init__(self, connection: ServerConnection, hello: frames.Hello) -> None:
        self.connection = connection
        self.hello = hello

    async def send(self, frame: Any) -> None:
        await self.connection.send(frame.wire())

    async def receive(self, kind: type[Any]) -> Any:
        """The next frame of a kind; others are passed over."""
        async with asyncio.timeout(SECONDS):
            while True:
                frame = frames.parse_frame(await self.connection.recv())
                if isinstance(frame, kind):
                    return frame


class ControlPlane:
    """Greets agents and hands their sessions to the test."""

    def __init__(self) -> None:
        self.signer = Signer(new_signing_key())
        self.sessions: asyncio.Queue[Session] = asyncio.Queue()
        self.paths: list[str] = []
        self.tokens: list[str] = []
        self.revision = 0

    async def greet(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.paths.append(connection.request.path)
        self.tokens.append(connection.request.headers["Authorization"])
        hello = frames.parse_frame(await connection.recv())
        assert isinstance(hello, frames.Hello)
        await connection.send(frames.Welcome(session=len(self.paths), signing_key=self.signer.public_key).wire())
        await self.sessions.put(Session(connection, hello))
        await connection.wait_closed()

    async def session(self) -> Session:
        async with asyncio.timeout(SECONDS):
            return await self.sessions.get()

    def next(self, signer: Signer | None = None, **changes: Any) -> frames.Desired:
        self.revision += 1
        fields = {
            "plane": "default", "epoch": 1, "revision": self.revision, "previous": self.revision - 1,
            "snapshot": self.revision == 1, "changes": (workload(key="c/e", generation=self.revision),),
        }  # fmt: skip
        return frames.Desired(signed=sign_revision(signer or self.signer, Revision(**(fields | changes))))


@contextlib.asynccontextmanager
async def listening(control: ControlPlane) -> AsyncIterator[None]:
    async with serve(control.greet, "127.0.0.1", PORT):
        yield


@pytest.fixture
async def control() -> AsyncIterator[ControlPlane]:
    found = ControlPlane()
    async with listening(found):
        yield found


class Agent:
    def __init__(self, directory: Path) -> None:
        (directory / "credential").write_text("token-1\n")
        self.inventory = Inventory(directory / "inventory")
        self.observations = Observations(SystemClock())
        self.pokes = 0
        self.is_gateway_ready = True
        self.logs = directory / "logs"
        self.settings = AgentSettings(
            directory=directory, servers=(f"http://127.0.0.1:{PORT}",), credential=directory / "credential"
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async def report() -> PlaneReport:
            return PlaneReport(
                isolation="none", gateway_ready=self.is_gateway_ready, gateway_url="http://x", agent_version="0"
            )

        link = Link(
            self.settings, self.inventory, self.observations, LogStore(self.logs),
            sealing_key="key", report=report, on_desired=self._poke,
        )  # fmt: skip
        task = asyncio.create_task(link.run())
        try:
            yield
            assert not task.done(), "the link must never end by itself"
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def write(self, *messages: str) -> None:
        (self.logs / LOGS).mkdir(parents=True, exist_ok=True)
        with (self.logs / LOGS / "1.jsonl").open("a") as file:
            for message in messages:
                line = {"time": f"t{message}", "stream": "stdout", "instance": "i", "message": message}
                file.write(json.dumps(line) + "\n")

    def _poke(self) -> None:
        self.pokes += 1


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    found = Agent(tmp_path)
    async with found.running():
        yield found
    found.inventory.close()


async def test_desired_state_is_durable_when_it_is_acknowledged(control: ControlPlane, agent: Agent) -> None:
    session = await control.session()
    await session.send(control.next())
    told = await session.receive(frames.Acknowledge)
    assert (told.epoch, told.revision, told.refused) == (1, 1, None)
    assert agent.inventory.position == Position(1, 1)
    assert set(agent.inventory.contents().workloads) == {"c/e"}
    await until(lambda: agent.pokes == 1)
    assert control.paths == ["/api/v1/planes/default/link"]
    assert control.tokens == ["Bearer token-1"]


async def test_a_broken_connection_is_resumed_from_the_revision_held(control: ControlPlane, agent: Agent) -> None:
    first = await control.session()
    assert (first.hello.epoch, first.hello.revision) == (0, 0)
    await first.send(control.next())
    await first.receive(frames.Acknowledge)
    first.connection.transport.abort()
    second = await control.session()
    assert (second.hello.epoch, second.hello.revision) == (1, 1)
    await second.send(control.next())
    assert (await second.receive(frames.Acknowledge)).revision == 2


async def test_the_link_comes_back_when_the_server_does(agent: Agent) -> None:
    control = ControlPlane()
    for _ in range(2):
        async with listening(control):
            await control.session()
    assert len(control.paths) == 2


async def test_a_gateway_that_comes_up_after_the_greeting_is_told(
    control: ControlPlane, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minuet.agent.link.REPORT_SECONDS", 0.02)
    agent.is_gateway_ready = False
    session = await control.session()
    assert session.hello.report.gateway_ready is False
    agent.is_gateway_ready = True
    while (told := await session.receive(frames.Observed)).report is None:
        assert told.workloads == ()
    assert told.report.gateway_ready is True


async def test_a_revision_signed_with_another_key_is_refused(control: ControlPlane, agent: Agent) -> None:
    session = await control.session()
    await session.send(control.next(Signer(new_signing_key())))
    told = await session.receive(frames.Acknowledge)
    assert (told.revision, told.refused) == (0, "BadSignature")
    assert agent.inventory.contents().workloads == {}
    assert agent.pokes == 0


async def test_a_revision_for_another_plane_is_refused(control: ControlPlane, agent: Agent) -> None:
    session = await control.session()
    await session.send(control.next(plane="other"))
    assert (await session.receive(frames.Acknowledge)).refused == "WrongPlane"
    assert agent.inventory.position == Position()


async def test_after_a_refused_gap_the_session_goes_on(control: ControlPlane, agent: Agent) -> None:
    session = await control.session()
    await session.send(control.next())
    await session.receive(frames.Acknowledge)
    control.revision += 3
    await session.send(control.next())
    told = await session.receive(frames.Acknowledge)
    assert (told.revision, told.refused) == (1, "RevisionGap")
    await session.send(control.next(snapshot=True))
    assert (await session.receive(frames.Acknowledge)).refused is None


async def test_a_control_plane_with_another_key_than_the_pinned_one_is_left(
    control: ControlPlane, agent: Agent
) -> None:
    session = await control.session()
    await until(lambda: agent.inventory.pinned("signing_key") == control.signer.public_key)
    pinned, control.signer = control.signer, Signer(new_signing_key())
    session.connection.transport.abort()
    stranger = await control.session()
    async with asyncio.timeout(SECONDS):
        await stranger.connection.wait_closed()
    assert agent.inventory.pinned("signing_key") == pinned.public_key
    control.signer = pinned
    genuine = await control.session()
    while genuine.connection.close_code is not None:
        genuine = await control.session()
    await genuine.send(control.next())
    assert (await genuine.receive(frames.Acknowledge)).refused is None


async def test_the_first_report_is_full(control: ControlPlane, agent: Agent) -> None:
    session = await control.session()
    assert (await session.receive(frames.Observed)).full


@pytest.mark.parametrize("text", ["no json", '{"frame": "unknown"}'])
async def test_a_frame_that_cannot_be_read_ends_the_session_and_not_the_link(
    control: ControlPlane, agent: Agent, text: str
) -> None:
    session = await control.session()
    await session.connection.send(text)
    again = await control.session()
    await again.send(control.next())
    assert (await again.receive(frames.Acknowledge)).refused is None


async def test_logs_are_answered_with_their_tail(control: ControlPlane, agent: Agent) -> None:
    agent.write("1", "2", "3")
    session = await control.session()
    await session.send(frames.LogQuery(id="q", key="c/e", tail=2))
    answer = await session.receive(frames.LogAnswer)
    assert [line.message for line in answer.lines] == ["2", "3"]
    assert (await session.receive(frames.LogAnswer)).done


async def test_logs_are_followed_until_nobody_reads_any_more(control: ControlPlane, agent: Agent) -> None:
    agent.write("1")
    session = await control.session()
    await session.send(frames.LogQuery(id="q", key="c/e", follow=True))
    assert [line.message for line in (await session.receive(frames.LogAnswer)).lines] == ["1"]
    agent.write("2")
    assert [line.message for line in (await session.receive(frames.LogAnswer)).lines] == ["2"]
    await session.send(frames.CancelQuery(id="q"))
    # Frames are handled in order: once this later query is answered, the first one was cancelled.
    await session.send(frames.LogQuery(id="later", key="c/e", follow=True))
    answers = [await session.receive(frames.LogAnswer)]
    agent.write("4")
    while answers[-1].lines[-1].message != "4":
        answers.append(await session.receive(frames.LogAnswer))
    assert {answer.id for answer in answers} == {"later"}


async def test_logs_of_something_unknown_are_empty_and_done(control: ControlPlane, agent: Agent) -> None:
    session = await control.session()
    await session.send(frames.LogQuery(id="q", key="../../x"))
    answer = await session.receive(frames.LogAnswer)
    assert (answer.done, answer.lines) == (True, ())


async def test_too_many_log_queries_are_refused(control: ControlPlane, agent: Agent) -> None:
    session = await control.session()
    for number in range(65):
        await session.send(frames.LogQuery(id=f"q{number}", key="c/e", follow=True))
    answer = await session.receive(frames.LogAnswer)
    assert (answer.id, answer.done) == ("q64", True)
    assert "too many" in (answer.error or "")


def test_plain_http_is_only_for_loopback() -> None:
    assert link_uri("http://127.0.0.1:1", "p") == "ws://127.0.0.1:1/api/v1/planes/p/link"
    assert link_uri("https://host/base/", "p") == "wss://host/base/api/v1/planes/p/link"
    for server in ("http://host:1", "ftp://127.0.0.1"):
        with pytest.raises(Invalid):
            link_uri(server, "p")
