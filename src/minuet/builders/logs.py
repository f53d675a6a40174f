"""A build's log: JSON lines on the builder's disk, bounded, read by many while it is written by one."""

from __future__ import annotations

import asyncio
import datetime
import json
import re
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

from minuet.kernel.clock import rfc3339
from minuet.kernel.secrets import Secret, redact

_MAX_LINE = 4096
_TAIL = 40
_EXPLAINED = 500
_LOOK_SECONDS = 0.05
_CONTROL = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]"
)


class BuildLog:
    """Appends lines; what exceeds `limit` bytes is dropped and counted."""

    def __init__(self, path: Path, limit: int, hidden: tuple[Secret, ...] = ()) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._left = limit
        self._hidden = hidden
        self._partial = b""
        self.dropped = 0
        self.phase = "fetch"
        self.tail: deque[str] = deque(maxlen=_TAIL)

    @property
    def said(self) -> str:
        """The last lines, each cut short: what a failure is explained from, by patterns."""
        return "\n".join(line[:_EXPLAINED] for line in self.tail)

    def say(self, message: str) -> None:
        """A line of the builder itself."""
        self._write("system", message)

    def feed(self, data: bytes) -> None:
        """Output of a command, in whatever pieces it comes."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._write("stdout", line.decode(errors="replace"))
        if len(self._partial) > _MAX_LINE:
            self.flush()

    def flush(self) -> None:
        """Ends a line that has no end."""
        if self._partial:
            rest, self._partial = self._partial, b""
            self._write("stdout", rest.decode(errors="replace"))

    def close(self) -> None:
        self.flush()
        if self.dropped:
            self._left = _MAX_LINE
            self._write("system", f"{self.dropped} lines were dropped, the log was full")
        self._file.close()

    def _write(self, stream: str, text: str) -> None:
        # A carriage return redraws a line; what counts is what stood there last.
        # Names of files may be no text at all; the log always is.
        text = text.encode("utf-8", "replace").decode()
        clean = _CONTROL.sub("", redact(text.rstrip("\r").rpartition("\r")[2], self._hidden))[:_MAX_LINE]
        self.tail.append(clean)
        now = rfc3339(datetime.datetime.now(datetime.UTC))
        record = json.dumps({"time": now, "stream": stream, "phase": self.phase, "message": clean}, ensure_ascii=False)
        line = record.encode() + b"\n"
        if len(line) > self._left:
            self.dropped += 1
            return
        self._left -= len(line)
        self._file.write(line)
        self._file.flush()


def remove_old(folder: Path, days: int, now: float) -> int:
    """Removes the logs of builds that ended so long ago; returns how many."""
    old = [path for path in folder.glob("*.ended") if path.stat().st_mtime < now - days * 86400]
    for path in old:
        path.with_suffix(".jsonl").unlink(missing_ok=True)
        path.unlink()
    return len(old)


async def follow(path: Path, finished: Path, *, wait: bool) -> AsyncIterator[bytes]:
    """Yields whole lines; with `wait`, goes on until the file `finished` exists and all was read."""
    position = 0
    while True:
        ended = finished.exists() or not wait
        data = await asyncio.to_thread(_read_from, path, position)
        whole = data[: data.rfind(b"\n") + 1]
        if whole:
            position += len(whole)
            yield whole
        elif ended:
            return
        else:
            await asyncio.sleep(_LOOK_SECONDS)


def _read_from(path: Path, position: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(position)
            return file.read(1024 * 1024)
    except FileNotFoundError:
        return b""
