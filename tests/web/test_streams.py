"""Event streams over real HTTP: ids, heartbeats, errors at the end, and a source that is closed with its reader."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI, Request

from minuet.kernel.errors import NotFound, Unauthenticated, Unavailable
from minuet.kernel.secrets import Secret
from minuet.web import problems, streams
from minuet.web.streams import LastEventId, ServerEvent
from tests.given import servers


class Source:
    """Yields what a test puts in, and knows whether it was closed."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[ServerEvent | Exception | None] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.asked_for: str | None = None
        self.is_revoked = self.is_gone = False

    async def events(self) -> AsyncIterator[ServerEvent]:
        try:
            while (item := await self.queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed.set()


@contextlib.asynccontextmanager
async def served(source: Source) -> AsyncIterator[str]:
    app = FastAPI()
    problems.install(app)

    async def authenticator(_: Secret) -> None:
        if source.is_revoked:
            raise Unauthenticated("the token was revoked", code="TokenUnknown")

    async def check() -> None:
        if source.is_gone:
            raise NotFound("it is gone", code="ComponentNotFound")

    app.state.authenticator = authenticator

    @app.get("/events")
    async def get_events(request: Request, owner: str = "acme", last: LastEventId = None):
        source.asked_for = last
        return streams.stream(request, source.events(), owner=owner, check=check)

    port = servers.free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}/events"
    finally:
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def reading(url: str, **given: str) -> AsyncIterator[Callable[[], object]]:
    headers = {"Authorization": "Bearer mno_x"} | given
    async with (
        httpx2.AsyncClient(trust_env=False, timeout=10) as client,
        client.stream("GET", url, headers=headers) as got,
    ):
        assert got.status_code == 200
        assert got.headers["content-type"].startswith("text/event-stream")
        lines = got.aiter_lines()

        async def block() -> list[str]:
            found: list[str] = []
            async for line in lines:
                if not line:
                    return found
                found.append(line)
            return found

        assert await block() == [": open"]
        yield block


async def test_an_event_has_its_name_its_data_and_its_id() -> None:
    source = Source()
    async with served(source) as url, reading(url) as block:
        source.queue.put_nowait(ServerEvent("line", {"message": "a\nb é"}, "7"))
        assert await block() == ["id: 7", "event: line", 'data: {"message": "a\\nb é"}']


async def test_a_reader_resumes_after_the_last_event_it_had() -> None:
    source = Source()
    async with served(source) as url, reading(url, **{"Last-Event-ID": "41"}):
        assert source.asked_for == "41"


async def test_silence_is_filled_with_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.05)
    source = Source()
    async with served(source) as url, reading(url) as block:
        assert await block() == [": heartbeat"]
        source.queue.put_nowait(ServerEvent("line", 1))
        while (found := await block()) == [": heartbeat"]:
            pass
        assert found == ["event: line", "data: 1"]


async def test_the_end_of_the_source_ends_the_stream() -> None:
    source = Source()
    async with served(source) as url, reading(url) as block:
        source.queue.put_nowait(None)
        assert await block() == []
        await asyncio.wait_for(source.closed.wait(), 5)


async def test_an_error_is_told_as_a_problem_and_ends_the_stream() -> None:
    source = Source()
    async with served(source) as url, reading(url) as block:
        source.queue.put_nowait(Unavailable("the plane went away", code="DataPlaneNotConnected"))
        name, data = await block()
        assert name == "event: error"
        assert '"DataPlaneNotConnected"' in data
        assert await block() == []


async def test_a_defect_ends_the_stream_without_a_traceback() -> None:
    source = Source()
    async with served(source) as url, reading(url) as block:
        source.queue.put_nowait(RuntimeError("a secret detail"))
        _, data = await block()
        assert '"Internal"' in data
        assert "secret detail" not in data


async def test_a_reader_that_goes_away_closes_the_source() -> None:
    source = Source()
    async with served(source) as url:
        async with reading(url):
            pass
        await asyncio.wait_for(source.closed.wait(), 5)


async def test_more_streams_than_allowed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS", 0)
    async with served(Source()) as url, httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.get(url)
    assert (answer.status_code, answer.json()["code"]) == (429, "Exhausted")


async def test_one_organization_cannot_take_all_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS_OF_ONE", 1)
    source = Source()
    async with served(source) as url, reading(url), httpx2.AsyncClient(trust_env=False) as client:
        assert (await client.get(url)).status_code == 429
        async with reading(f"{url}?owner=globex"):
            pass


@pytest.mark.parametrize(("what", "code"), [("is_revoked", "TokenUnknown"), ("is_gone", "ComponentNotFound")])
async def test_a_stream_ends_when_its_token_or_its_subject_is_gone(
    monkeypatch: pytest.MonkeyPatch, what: str, code: str
) -> None:
    monkeypatch.setattr(streams, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.05)
    source = Source()
    async with served(source) as url, reading(url) as block:
        assert await block() == [": heartbeat"]
        setattr(source, what, True)
        while (found := await block()) == [": heartbeat"]:
            pass
        assert found[0] == "event: error"
        assert f'"{code}"' in found[1]
        assert await block() == []
        await asyncio.wait_for(source.closed.wait(), 5)
