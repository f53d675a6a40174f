"""The agents' link, with a real WebSocket client against the real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from minuet.protocol import VERSION
from minuet.protocol.frames import Acknowledge, Hello, Observed, Welcome, parse_frame
from minuet.protocol.observed import PlaneReport
from minuet.protocol.sealing import new_sealing_key, sealing_public_key
from tests.given.servers import Server

KEY = sealing_public_key(new_sealing_key())
REPORT = PlaneReport(
    isolation="sandbox", gateway_ready=True, gateway_url="http://127.0.0.1:8480", agent_version="0.1.0"
)
SECONDS = 10


def dial(server: Server, token: str | None = None, plane: str = "default", **options: Any) -> websockets.connect:
    headers = {"Authorization": f"Bearer {token or server.credential('agent')}"}
    address = f"ws://127.0.0.1:{server.port}/api/v1/planes/{plane}/link"
    return websockets.connect(address, additional_headers=headers, proxy=None, **options)


def hello(epoch: int = 1, revision: int = 0, **changes: Any) -> str:
    return Hello(plane="default", epoch=epoch, revision=revision, sealing_key=KEY, report=REPORT, **changes).wire()


async def receive(link: ClientConnection) -> Any:
    return parse_frame(await asyncio.wait_for(link.recv(), SECONDS))


@contextlib.asynccontextmanager
async def connected(server: Server, **held: Any) -> AsyncIterator[tuple[ClientConnection, Welcome]]:
    async with dial(server) as link:
        await link.send(hello(**held))
        welcome = await receive(link)
        assert isinstance(welcome, Welcome)
        yield link, welcome


def plane(server: Server) -> dict[str, Any]:
    return server.client().get("/organizations/default/data-planes/default").json()


async def until(server: Server, condition: Any) -> dict[str, Any]:
    deadline = time.monotonic() + SECONDS
    while True:
        shown = await asyncio.to_thread(plane, server)
        if condition(shown):
            return shown
        assert time.monotonic() < deadline, shown
        await asyncio.sleep(0.02)


async def closed_with(link: ClientConnection) -> int:
    async with asyncio.timeout(SECONDS):
        await link.wait_closed()
    assert link.close_code is not None
    return link.close_code


@pytest.mark.parametrize("token", ["nonsense", "owner", "builder"])
async def test_only_the_planes_own_agent_gets_through(server: Server, token: str) -> None:
    text = {"owner": server.owner_token, "builder": server.credential("builder")}.get(token, token)
    with pytest.raises(websockets.InvalidStatus) as caught:
        async with dial(server, text):
            pass
    assert caught.value.response.status_code in (401, 403)
    assert json.loads(caught.value.response.body)["family"] in ("Unauthenticated", "Forbidden")


async def test_an_agent_of_another_plane_is_refused(server: Server) -> None:
    with pytest.raises(websockets.InvalidStatus) as caught:
        async with dial(server, plane="elsewhere"):
            pass
    assert caught.value.response.status_code == 403


async def test_the_plane_is_connected_while_the_link_is_up_and_unknown_since_when_it_is_down(server: Server) -> None:
    async with connected(server):
        shown = await until(server, lambda shown: shown["connected"])
        assert shown["unknownSince"] is None
        assert (shown["isolation"], shown["gatewayUrl"]) == ("sandbox", "http://127.0.0.1:8480")
        assert shown["conditions"][0]["status"] == "True"
    shown = await until(server, lambda shown: not shown["connected"])
    assert shown["unknownSince"] is not None
    assert [item["status"] for item in shown["conditions"]] == ["Unknown"]
    assert shown["conditions"][0]["reason"] == "PlaneUnreachable"


async def test_a_newer_session_ends_the_older_one(server: Server) -> None:
    async with connected(server) as (older, first), connected(server) as (_, second):
        assert second.session > first.session
        assert await closed_with(older) == 4409
        assert (await until(server, lambda shown: True))["connected"]


async def test_the_end_of_a_superseded_session_does_not_disconnect_the_plane(server: Server) -> None:
    async with connected(server) as (older, _), connected(server):
        await closed_with(older)
        await older.close()
        await asyncio.sleep(0)
        assert (await asyncio.to_thread(plane, server))["connected"]


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ("{", 4400),
        ('{"frame": "observed", "sequence": 1}', 4400),
        (hello(version=VERSION + 5), 4426),
        (hello().replace(KEY, "bm8ga2V5"), 4400),
        (hello().replace(KEY, "not base64"), 4400),
        (hello().replace('"plane":"default"', '"plane":"other"'), 4400),
    ],
)
async def test_a_greeting_that_is_none_ends_the_link(server: Server, first: str, code: int) -> None:
    async with dial(server) as link:
        await link.send(first)
        assert await closed_with(link) == code


async def test_a_frame_of_the_future_is_passed_over_but_not_endlessly(server: Server) -> None:
    async with connected(server) as (link, _):
        await link.send('{"frame": "telepathy"}')
        await link.send(Observed(sequence=1, report=REPORT.model_copy(update={"agent_version": "9.9"})).wire())
        await until(server, lambda shown: shown["agentVersion"] == "9.9")
        for _number in range(30):
            with contextlib.suppress(websockets.ConnectionClosed):
                await link.send('{"frame": "telepathy"}')
        assert await closed_with(link) == 4400


async def test_duplicate_and_late_reports_change_nothing(server: Server) -> None:
    async with connected(server) as (link, _):
        for sequence, version in ((1, "1.0"), (3, "3.0"), (3, "3.1"), (2, "2.0")):
            report = REPORT.model_copy(update={"agent_version": version})
            await link.send(Observed(sequence=sequence, report=report).wire())
        await link.send(
            Observed(
                sequence=4, report=REPORT.model_copy(update={"agent_version": "3.0", "gateway_ready": False})
            ).wire()
        )
        shown = await until(server, lambda shown: not shown["gatewayReady"])
        assert shown["agentVersion"] == "3.0"


async def test_acknowledging_what_was_never_sent_ends_the_link(server: Server) -> None:
    async with connected(server) as (link, _):
        await link.send(Acknowledge(epoch=1, revision=99).wire())
        assert await closed_with(link) == 4400


async def test_an_agent_that_is_ahead_of_a_restored_control_plane_raises_an_alarm_and_gets_nothing(
    server: Server,
) -> None:
    async with connected(server, revision=500) as (link, _):
        shown = await until(server, lambda shown: len(shown["conditions"]) == 2)
        assert shown["conditions"][1]["status"] == "False"
        assert "newer" in shown["conditions"][1]["message"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(link.recv(), 1.5)
    refused = server.client(None).post("/organizations/default/data-planes/default/epochs")
    assert refused.status_code == 201
    epoch = refused.json()["epoch"]
    async with connected(server, revision=500) as (link, _):
        frame = await receive(link)
        payload = json.loads(frame.signed.payload)
        assert (payload["epoch"], payload["snapshot"]) == (epoch, True)


async def test_a_silent_client_that_answers_no_ping_is_given_up(server: Server) -> None:
    started = time.monotonic()
    async with connected(server) as (link, _):
        link.transport.pause_reading()
        await until_lost(server)
        link.transport.resume_reading()
    assert time.monotonic() - started < 45


async def until_lost(server: Server) -> None:
    deadline = time.monotonic() + 60
    while (await asyncio.to_thread(plane, server))["connected"]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.5)


async def test_the_state_survives_a_restart_of_the_server(server: Server) -> None:
    before = await asyncio.to_thread(plane, server)
    async with connected(server, epoch=before["epoch"], revision=before["revision"]) as (link, first):
        await until(server, lambda shown: shown["connected"])
        await asyncio.to_thread(server.kill)
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(link.recv(), SECONDS)
    await asyncio.to_thread(server.start)
    shown = await asyncio.to_thread(plane, server)
    assert shown["revision"] == before["revision"]
    if not server.storage:
        assert shown["connected"] is False
    async with connected(server, epoch=before["epoch"], revision=before["revision"]) as (_, second):
        assert second.session > first.session
