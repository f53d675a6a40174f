"""One JSON document a line over a Unix socket, with file descriptors beside it.

Both ends use it: the launcher and its shims without asyncio, `client.py` with
it. Separate so that framing and its bounds are written once.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections import deque
from typing import Any

from minuet import system

MAX_MESSAGE = 8 * 1024 * 1024
"""Bytes of one document; the largest carry the mounted files of a workload."""

MAX_FDS = 8
_CHUNK = 256 * 1024

Message = dict[str, Any]


class PeerGone(Exception):
    """The other side closed, or does not keep to the protocol."""


def encode(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


class Channel:
    """One connection that never blocks: what arrives is split into documents, what leaves is buffered."""

    def __init__(self, connection: socket.socket, *, outgoing_limit: int = MAX_MESSAGE) -> None:
        connection.setblocking(False)
        self.connection = connection
        self._limit = outgoing_limit
        self._incoming = bytearray()
        self._fds: list[int] = []
        self._outgoing = bytearray()
        self._documents: deque[tuple[Message, list[int]]] = deque()

    def fileno(self) -> int:
        return self.connection.fileno()

    def peer_uid(self) -> int:
        """The uid of the process that connected, as the kernel recorded it."""
        return system.peer_uid(self.connection)

    def receive(self) -> list[tuple[Message, list[int]]]:
        """Returns the complete documents that have arrived; raises `PeerGone` at the end of the stream."""
        try:
            data, ancillary, _, _ = self.connection.recvmsg(_CHUNK, socket.CMSG_SPACE(MAX_FDS * 4))
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            raise PeerGone from error
        self._take_fds(ancillary)
        if not data or len(self._fds) > MAX_FDS:
            raise PeerGone
        self._incoming += data
        if b"\n" not in data:
            if len(self._incoming) > MAX_MESSAGE:
                raise PeerGone
            return []
        return [self._document(line) for line in self._lines()]

    def _take_fds(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        for level, kind, raw in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found = array.array("i")
                found.frombytes(raw[: len(raw) - len(raw) % found.itemsize])
                for fd in found:
                    os.set_inheritable(fd, False)
                self._fds += found

    def _lines(self) -> list[bytes]:
        *whole, rest = bytes(self._incoming).split(b"\n")
        self._incoming = bytearray(rest)
        return whole

    def _document(self, line: bytes) -> tuple[Message, list[int]]:
        fds, self._fds = self._fds, []
        try:
            message = json.loads(line)
        except ValueError as error:
            raise PeerGone from error
        if not isinstance(message, dict):
            raise PeerGone
        return message, fds

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Sends, or keeps for `flush`; raises `PeerGone` when the peer does not read.

        Descriptors travel with the first byte, so nothing may be buffered before them.
        """
        data = encode(message)
        if fds:
            self.flush()
            try:
                sent = socket.send_fds(self.connection, [data], list(fds))
            except OSError as error:
                raise PeerGone from error
            data = data[sent:]
        self._outgoing += data
        if len(self._outgoing) > self._limit:
            raise PeerGone
        self.flush()

    def flush(self) -> bool:
        """Sends what is buffered; True when nothing is left."""
        while self._outgoing:
            try:
                del self._outgoing[: self.connection.send(self._outgoing)]
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                raise PeerGone from error
        return True

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        self.connection.close()
