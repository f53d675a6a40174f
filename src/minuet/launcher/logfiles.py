"""A workload's log on disk: JSON lines in bounded segments, written by its shims.

Several instances of a workload share one folder; each writes segments of its
own, named by the time of their first line. Whoever starts a segment removes
the oldest ones beyond the workload's share. Nothing here can fail an
application: what cannot be written is counted and told with the next line.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from json.encoder import encode_basestring

LINE_LIMIT = 16 * 1024
"""Bytes; a longer line is cut into several records."""

_TAIL_LINES = 20
_TAIL_CHARACTERS = 500


class Lines:
    """Cuts one stream's bytes into lines of at most `LINE_LIMIT`."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Returns the lines that `data` completes."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_LIMIT:
            whole.append(self._rest)
            self._rest = b""
        return [piece for line in whole for piece in _pieces(line)]

    def end(self) -> list[bytes]:
        """Returns what is left when the stream ends without a newline."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


def _pieces(line: bytes) -> list[bytes]:
    return [line[start : start + LINE_LIMIT] for start in range(0, len(line), LINE_LIMIT)] or [line]


class LogFolder:
    """Writes records below an open folder descriptor, so that no path is looked up after the start."""

    def __init__(self, folder_fd: int, instance: str, *, segment: int, total: int, per_second: int) -> None:
        self._folder = folder_fd
        self._instance = instance
        self._segment_limit = segment
        self._total_limit = total
        self._per_second = per_second
        self._fd: int | None = None
        self._written = 0
        self._dropped = 0
        self._allowance = float(per_second)
        self._filled = time.monotonic()
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def write(self, stream: str, lines: list[bytes]) -> None:
        """Adds lines of one stream that arrived together."""
        if not lines:
            return
        kept = lines[: self._admit(len(lines))]
        self._dropped += len(lines) - len(kept)
        records = []
        moment = _now()
        for line in kept:
            text = line.decode("utf-8", "replace").rstrip("\r")
            self.tail.append(text[:_TAIL_CHARACTERS])
            records.append(
                f'{{"time":"{moment}","stream":"{stream}","instance":"{self._instance}",'
                f'"message":{encode_basestring(text)},"dropped":{self._dropped}}}\n'
            )
            self._dropped = 0
        self._append("".join(records).encode("utf-8", "replace"), len(records))

    def _admit(self, wanted: int) -> int:
        now = time.monotonic()
        self._allowance = min(self._per_second * 2.0, self._allowance + (now - self._filled) * self._per_second)
        self._filled = now
        admitted = min(wanted, int(self._allowance))
        self._allowance -= admitted
        return admitted

    def _append(self, data: bytes, records: int) -> None:
        if not data:
            return
        try:
            if self._fd is None or self._written > self._segment_limit or os.fstat(self._fd).st_nlink == 0:
                self._begin_segment()
            self._written += os.write(self._fd or -1, data)
        except OSError:
            self._dropped += records

    def _begin_segment(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        name = f"{time.time_ns() // 1_000_000:013d}-{self._instance}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(name, flags, 0o640, dir_fd=self._folder)
        self._written = 0
        self._make_room()

    def _make_room(self) -> None:
        """Removes the oldest segments until a whole new one fits into the workload's share."""
        sizes = []
        for name in sorted(os.listdir(self._folder)):  # noqa: PTH208 - a descriptor, not a path
            with contextlib.suppress(OSError):
                sizes.append((name, os.stat(name, dir_fd=self._folder, follow_symlinks=False).st_size))
        total = sum(size for _, size in sizes)
        for name, size in sizes[:-1]:
            if total + self._segment_limit <= self._total_limit:
                break
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._folder)
            total -= size


def _now() -> str:
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest // 1_000_000:03d}Z"
