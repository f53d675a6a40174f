"""One GET on a connection of its own, to Envoy's admin socket or through its listener.

Used by the gateway host only. Not the HTTP client of the house: Envoy keeps a
connection open for a second after the answer, and this one does not wait for it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from minuet.kernel.addresses import dialable

_SECONDS = 2.0
_LARGEST = 64 * 1024 * 1024


async def get_unix(socket: Path, path: str) -> str:
    """Raises `OSError`, `TimeoutError` or `ValueError` unless the answer is a 200."""
    async with asyncio.timeout(_SECONDS):
        return await _get(*await asyncio.open_unix_connection(socket), "admin", path)


async def get_tcp(address: str, port: int, host: str, path: str) -> str:
    """The same through a listener; an address that means every one is reached at loopback."""
    async with asyncio.timeout(_SECONDS):
        return await _get(*await asyncio.open_connection(dialable(address), port), host, path)


async def _get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, path: str) -> str:
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        if not head.startswith("http/1.1 200"):
            raise OSError("the answer is not a 200")
        return (await _body(reader, head)).decode()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise OSError("the answer broke off") from error
    finally:
        writer.close()


async def _body(reader: asyncio.StreamReader, head: str) -> bytes:
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    if "content-length" in fields:
        return await reader.readexactly(int(fields["content-length"]))
    body = bytearray()
    while (length := int(await reader.readline(), 16)) and len(body) < _LARGEST:
        body += await reader.readexactly(length)
        await reader.readline()
    return bytes(body)
