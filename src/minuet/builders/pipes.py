"""Pipes of sandboxes, named and unnamed, read and written on the event loop without blocking it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from pathlib import Path

CHUNK = 64 * 1024
_LOOK_SECONDS = 0.01


async def write(descriptor: int, data: bytes) -> None:
    """Writes everything into a pipe that does not block; raises `OSError` when nobody reads it any more."""
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            ready = asyncio.Event()
            loop.add_writer(descriptor, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_writer(descriptor)


async def stream(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    """A reader of a pipe; closing its transport tells the writer that nobody reads it any more."""
    reader = asyncio.StreamReader(limit=CHUNK)
    file = os.fdopen(descriptor, "rb", buffering=0)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    return reader, transport


async def read_all(path: Path, limit: int) -> str:
    """All that is written into a named pipe by its first writer, cut at `limit` bytes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    loop = asyncio.get_running_loop()
    parts: list[bytes] = []
    size = 0
    try:
        while True:
            ready = asyncio.Event()
            loop.add_reader(descriptor, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_reader(descriptor)
            with contextlib.suppress(BlockingIOError):
                if data := os.read(descriptor, CHUNK):
                    parts.append(data[: max(0, limit - size)])
                    size += len(data)
                elif parts:
                    return b"".join(parts).decode(errors="replace")
    finally:
        os.close(descriptor)


async def open_for_reader(path: Path) -> int:
    """Opens a named pipe for writing once somebody reads it: closed before that, the reader would wait for ever."""
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        await asyncio.sleep(_LOOK_SECONDS)
