"""The only way out of a build: package sources and nothing else, however it is asked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from minuet.builders.egress import Egress
from minuet.infra.http import Guard, public_only


@dataclass
class Proxy:
    egress: Egress
    port: int

    async def say(self, text: str) -> str:
        """One connection: what the proxy answers until it closes."""
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(text.encode("latin-1"))
            await writer.drain()
            answer = await reader.read()
            writer.close()
            return answer.decode("latin-1")


@dataclass
class Upstream:
    port: int
    heard: list[str]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    heard: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield Upstream(server.sockets[0].getsockname()[1], heard)
    server.close()


async def proxy(*allowed: str, guard: Guard | None = None) -> Proxy:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    egress = Egress(frozenset(allowed), guard)
    await egress.serve(listener)
    return Proxy(egress, listener.getsockname()[1])


async def test_an_allowed_host_is_reached_by_tunnel_and_by_address(upstream: Upstream) -> None:
    given = await proxy("localhost")
    plain = await given.say(f"GET http://localhost:{upstream.port}/a?b=c HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert plain.endswith("hello")
    assert upstream.heard[0].startswith("GET /a?b=c HTTP/1.1")
    tunnel = await given.say(f"CONNECT LOCALHOST.:{upstream.port} HTTP/1.1\r\n\r\nGET /t HTTP/1.1\r\n\r\n")
    assert "200 Connection established" in tunnel
    assert tunnel.endswith("hello")
    assert given.egress.refused == {}


async def test_another_host_is_refused_and_named(upstream: Upstream) -> None:
    given = await proxy("packages.example.com")
    for asked in (
        f"CONNECT localhost:{upstream.port}",
        f"GET http://localhost:{upstream.port}/",
        f"CONNECT 127.0.0.1:{upstream.port}",
    ):
        answer = await given.say(f"{asked} HTTP/1.1\r\n\r\n")
        assert answer.startswith("HTTP/1.1 403")
    assert list(given.egress.refused) == ["localhost", "127.0.0.1"]
    assert upstream.heard == []


async def test_a_name_that_a_user_wrote_does_not_lead_inside(upstream: Upstream) -> None:
    given = await proxy("localhost", guard=public_only())
    answer = await given.say(f"CONNECT localhost:{upstream.port} HTTP/1.1\r\n\r\n")
    assert answer.startswith("HTTP/1.1 403")
    assert "not a public one" in answer
    assert (list(given.egress.refused), upstream.heard) == (["localhost"], [])
    opened = await proxy("localhost", guard=public_only(["127.0.0.0/8", "::1/128"]))
    assert (await opened.say(f"GET http://localhost:{upstream.port}/ HTTP/1.1\r\n\r\n")).endswith("hello")


async def test_an_allowed_host_that_does_not_answer_is_no_refusal() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        given = await proxy("localhost")
        answer = await given.say(f"CONNECT localhost:{closed.getsockname()[1]} HTTP/1.1\r\n\r\n")
    assert answer.startswith("HTTP/1.1 502")
    assert given.egress.refused == {}


@pytest.mark.parametrize(
    "text",
    ["\r\n\r\n", "GET\r\n\r\n", "CONNECT localhost:port HTTP/1.1\r\n\r\n", "CONNECT : HTTP/1.1\r\n\r\n", "GET http://[ HTTP/1.1\r\n\r\n",
     "x" * 100_000, "CONNECT localhost:99999999 HTTP/1.1\r\n\r\n", "\x16\x03\x01\x00\xf4\x01\r\n\r\n"],
)  # fmt: skip
async def test_nonsense_ends_its_own_connection_alone(upstream: Upstream, text: str) -> None:
    given = await proxy("localhost")
    try:
        answer = await given.say(text)
        assert "200" not in answer
    except ConnectionResetError:
        pass
    assert (await given.say(f"GET http://localhost:{upstream.port}/ HTTP/1.1\r\n\r\n")).endswith("hello")


async def test_names_that_were_refused_are_bounded() -> None:
    given = await proxy()
    for number in range(40):
        await given.say(f"CONNECT host-{number}.{'x' * 400}:443 HTTP/1.1\r\n\r\n")
    assert len(given.egress.refused) == 20
    assert max(map(len, given.egress.refused)) <= 253
