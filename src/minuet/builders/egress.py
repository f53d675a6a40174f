"""The only way out of a build: a proxy that lets through to package sources and names what it refused.

It serves a listener that lives inside the sandbox's network namespace, so each
build has its own and can reach nothing else. Which hosts are package sources is
what the tools on this machine are configured to use; no host is written here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
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


@functools.cache
def package_sources() -> frozenset[str]:
    """The hosts that this machine's own pip, npm and Go take packages from; asked once."""
    hosts: set[str] = set()
    for source in (*_pip_sources(), *_npm_sources(), *_go_sources()):
        host = urlsplit(source if "//" in source else f"//{source}").hostname
        if host:
            hosts.add(host.lower())
    return frozenset(hosts)


def pip_index() -> str | None:
    """The index that pip is configured to use, if it is another than its own default."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=20, check=False
        )
        for line in done.stdout.splitlines():
            name, _, value = line.partition("=")
            if name.endswith(".index-url"):
                return _without_user(value.strip("'\""))
    return None


def _pip_sources() -> list[str]:
    script = (
        "import json; from pip._internal.models.index import PyPI; "
        "print(json.dumps([PyPI.url, '//' + PyPI.file_storage_domain]))"
    )
    found = ask([sys.executable, "-c", script])
    sources: list[str] = json.loads(found) if found else []
    configured = pip_index()
    return [*sources, configured] if configured else sources


@functools.cache
def npm_registry() -> str | None:
    """The registry that npm is configured to use; what a person wrote into it to be let in is left out."""
    found = ask(["npm", "config", "get", "registry"])
    return _without_user(found) if urlsplit(found).hostname else None


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _npm_sources() -> list[str]:
    return [found] if (found := npm_registry()) else []


@functools.cache
def go_settings() -> dict[str, str]:
    """Where this machine's Go takes modules and their checksums from; empty without Go."""
    names = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE")
    found = ask([str(path), "env", *names]) if (path := go_program()) else ""
    return dict(zip(names, found.splitlines(), strict=False))


def go_program() -> Path | None:
    """The Go of this machine, if it lies where every sandbox sees it."""
    usual = (shutil.which("go"), "/usr/local/go/bin/go", "/usr/lib/go/bin/go")
    return next((Path(path) for path in usual if path and path.startswith("/usr/") and Path(path).exists()), None)


def _go_sources() -> list[str]:
    settings = go_settings()
    text = f"{settings.get('GOPROXY', '')},{settings.get('GOSUMDB', '').partition('+')[0]}"
    return [part for part in text.replace("|", ",").split(",") if "." in part]


def ask(command: list[str]) -> str:
    """The answer of a tool of this machine; nothing when it is not there."""
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": os.environ.get("HOME", "/")}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, env=environment)
        if done.returncode == 0:
            return done.stdout.strip()
    return ""
