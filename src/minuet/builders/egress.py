"""The only way out of a build: a proxy that lets through to package sources and names what it refused.

It serves a listener that lives inside the sandbox's network namespace, so each
build has its own and can reach nothing else. Which hosts are let through is the
caller's to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from urllib.parse import urlsplit

from minuet.infra.http import Guard
from minuet.kernel.errors import Forbidden

_BUFFER = 64 * 1024
_HEAD_LIMIT = 16 * 1024
_CONNECT_SECONDS = 15.0
_MAX_CONNECTIONS = 128
_MAX_REFUSED, _MAX_NAME = 20, 253


class Egress:
    """Serves one build's proxy; `refused` collects the hosts it asked for in vain.

    A `guard` looks at what an allowed name resolves to: for names that users wrote.
    """

    def __init__(self, allowed: frozenset[str], guard: Guard | None = None) -> None:
        self._allowed = allowed
        self._guard = guard
        self.refused: dict[str, None] = {}
        self._slots = asyncio.Semaphore(_MAX_CONNECTIONS)
        self._server: asyncio.Server | None = None

    async def serve(self, listener: socket.socket) -> None:
        """Starts answering on the listener; `close` ends it."""
        self._server = await asyncio.start_server(self._guarded, sock=listener, limit=_HEAD_LIMIT)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _guarded(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broken = (OSError, EOFError, asyncio.LimitOverrunError, ValueError, OverflowError)
        try:
            with contextlib.suppress(*broken):
                async with self._slots:
                    await self._handle(reader, writer)
        finally:
            writer.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            upstream = await self._dial(host.strip("[]"), int(port), writer)
            if upstream is not None:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await _join(reader, writer, *upstream)
            return
        parts = urlsplit(target)
        if parts.scheme != "http" or not parts.hostname:
            writer.write(_answer(400, "only CONNECT and http:// addresses are understood here"))
            await writer.drain()
            return
        upstream = await self._dial(parts.hostname or "", parts.port or 80, writer)
        if upstream is None:
            return
        path = parts._replace(scheme="", netloc="").geturl() or "/"
        lines = [line for line in head.split(b"\r\n")[1:] if not line.lower().startswith((b"proxy-", b"connection:"))]
        upstream[1].write(f"{method} {path} HTTP/1.1\r\nConnection: close\r\n".encode("latin-1") + b"\r\n".join(lines))
        await _join(reader, writer, *upstream)

    async def _dial(
        self, host: str, port: int, writer: asyncio.StreamWriter
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        name = host.lower().rstrip(".")
        if name not in self._allowed:
            await self._refuse(name, writer, "builds may reach package sources only")
            return None
        try:
            address = await self._resolve(name, port)
            return await asyncio.wait_for(asyncio.open_connection(address, port), _CONNECT_SECONDS)
        except Forbidden as error:
            await self._refuse(name, writer, error.message)
            return None
        except (OSError, TimeoutError) as error:
            writer.write(_answer(502, f"{name} does not answer: {error}"))
            await writer.drain()
            return None

    async def _resolve(self, host: str, port: int) -> str:
        """The address that is then connected to, so that a name cannot change its mind after the check."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(item[4][0]) for item in found]
        for address in addresses:
            if self._guard is not None:
                self._guard(address)
        return addresses[0]

    async def _refuse(self, host: str, writer: asyncio.StreamWriter, why: str) -> None:
        if len(self.refused) < _MAX_REFUSED:
            self.refused[host[:_MAX_NAME]] = None
        writer.write(_answer(403, f"{host} is refused: {why}"))
        await writer.drain()


def _answer(status: int, text: str) -> bytes:
    body = text.encode() + b"\n"
    return f"HTTP/1.1 {status} Refused\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    try:
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
    finally:
        far_writer.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_BUFFER):
            target.write(data)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()
