"""The way out of a build, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from minuet.builders.egress import Egress
from minuet.infra.http import Guard, public_only

HERE = frozenset({"127.0.0.1", "localhost"})


@contextlib.asynccontextmanager
async def upstream() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that keeps what it is sent first and answers with a fixed body."""
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()


@contextlib.asynccontextmanager
async def proxy(allowed: frozenset[str], guard: Guard | None = None) -> AsyncIterator[tuple[Egress, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    egress = Egress(allowed, guard)
    await egress.serve(listener)
    try:
        yield egress, listener.getsockname()[1]
    finally:
        await egress.close()


async def ask(port: int, *parts: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    for part in parts:
        writer.write(part)
        if part is not parts[-1]:
            answer += await reader.readuntil(b"\r\n\r\n")
    async with asyncio.timeout(10):
        answer += await reader.read()
    writer.close()
    return answer


async def test_a_tunnel_to_an_allowed_host_carries_both_ways() -> None:
    async with upstream() as (far, heads), proxy(frozenset({"127.0.0.1"})) as (egress, port):
        answer = await ask(port, f"CONNECT 127.0.0.1:{far} HTTP/1.1\r\n\r\n".encode(), b"GET / HTTP/1.1\r\n\r\n")
    assert b"200 Connection established" in answer
    assert answer.endswith(b"hello")
    assert heads == [b"GET / HTTP/1.1\r\n\r\n"]
    assert not egress.refused


async def test_a_plain_request_is_passed_on_without_the_proxys_own_headers() -> None:
    request = "GET http://127.0.0.1:{}/a?b=c HTTP/1.1\r\nHost: x\r\nProxy-Authorization: secret\r\nAccept: */*\r\n\r\n"
    async with upstream() as (far, heads), proxy(frozenset({"127.0.0.1"})) as (_, port):
        assert (await ask(port, request.format(far).encode())).endswith(b"hello")
    assert heads[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert b"Accept: */*" in heads[0]
    assert b"secret" not in heads[0]


@pytest.mark.parametrize(
    ("request_", "host"),
    [
        (b"CONNECT Evil.Example.com.:443 HTTP/1.1\r\n\r\n", "evil.example.com"),
        (b"GET http://evil.example.com/x HTTP/1.1\r\n\r\n", "evil.example.com"),
        (b"GET http://127.0.0.1@evil.example.com/ HTTP/1.1\r\n\r\n", "evil.example.com"),
        (b"CONNECT [::1]:443 HTTP/1.1\r\n\r\n", "::1"),
    ],
)
async def test_another_host_is_refused_and_named(request_: bytes, host: str) -> None:
    async with proxy(frozenset({"127.0.0.1"})) as (egress, port):
        answer = await ask(port, request_)
    assert answer.startswith(b"HTTP/1.1 403")
    assert host.encode() in answer
    assert list(egress.refused) == [host]


async def test_a_name_that_people_wrote_may_not_lead_to_this_machine() -> None:
    async with upstream() as (far, heads), proxy(frozenset({"localhost"}), public_only()) as (egress, port):
        answer = await ask(port, f"CONNECT localhost:{far} HTTP/1.1\r\n\r\n".encode())
    assert b"403" in answer
    assert list(egress.refused) == ["localhost"]
    assert not heads


async def test_an_allowed_host_that_does_not_answer_is_told_and_not_taken_for_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = closed.getsockname()[1]
    async with proxy(frozenset({"127.0.0.1"})) as (egress, port):
        assert b"502" in await ask(port, f"CONNECT 127.0.0.1:{dead} HTTP/1.1\r\n\r\n".encode())
    assert not egress.refused


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1\r\n\r\n", b"GET ftp://127.0.0.1/ HTTP/1.1\r\n\r\n"])
async def test_what_is_no_request_to_a_proxy_is_told_so(request_: bytes) -> None:
    async with proxy(HERE) as (egress, port):
        assert (await ask(port, request_)).startswith(b"HTTP/1.1 400")
    assert not egress.refused


@pytest.mark.parametrize("request_", [b"\r\n\r\n", b"CONNECT x HTTP/1.1\r\n\r\n", b"A" * 40_000 + b"\r\n\r\n", b"\xff \xff\r\n\r\n"])  # fmt: skip
async def test_nonsense_closes_the_connection_and_the_next_one_is_served(request_: bytes) -> None:
    async with upstream() as (far, _), proxy(frozenset({"127.0.0.1"})) as (_, port):
        with contextlib.suppress(ConnectionError):
            await ask(port, request_)
        assert (await ask(port, f"GET http://127.0.0.1:{far}/ HTTP/1.1\r\n\r\n".encode())).endswith(b"hello")


async def test_names_that_were_refused_are_bounded() -> None:
    async with proxy(frozenset()) as (egress, port):
        for number in range(40):
            await ask(port, f"CONNECT host-{number}.{'x' * 400}:443 HTTP/1.1\r\n\r\n".encode())
        assert len(egress.refused) == 20
        assert max(map(len, egress.refused)) <= 253


async def test_a_port_beyond_all_ports_closes_the_connection() -> None:
    async with proxy(frozenset({"localhost"})) as (_, port):
        assert b" 200 " not in await ask(port, b"CONNECT localhost:99999999 HTTP/1.1\r\n\r\n")
