"""Server-sent events as the standard defines them, from bytes to events. Pure: no network, no clock.

Called by `api.py`. A parser of our own, because text readers also split lines
at characters that a log line may hold (U+2028, U+0085), and because what is
read has to be bounded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

MAX_EVENT_BYTES = 8 * 1024 * 1024
"""Longest event that is read; the longest answer of a server is far below it."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event; `id` is the last one that the stream gave."""

    name: str
    data: dict[str, Any]
    id: str | None = None


class NotAStream(ValueError):
    """What arrived is not a stream of JSON events."""


def parse(chunks: Iterable[bytes]) -> Iterator[ServerEvent | None]:
    """Yields events as they become complete, and None after each chunk, so that a caller can look at the time."""
    parser = _Parser()
    for chunk in chunks:
        yield from parser.feed(chunk)
        yield None


class _Parser:
    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0
        self._id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise NotAStream(f"a line is longer than {MAX_EVENT_BYTES} bytes")
        for line in lines:
            event = self._line(line.removesuffix(b"\r"))
            if event is not None:
                yield event

    def _line(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value)
            if self._size > MAX_EVENT_BYTES:
                raise NotAStream(f"an event is longer than {MAX_EVENT_BYTES} bytes")
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode(errors="replace")
        elif field == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        return None

    def _dispatch(self) -> ServerEvent | None:
        text, name = b"\n".join(self._data), self._name or "message"
        complete = bool(self._data)
        self._name, self._data, self._size = "", [], 0
        if not complete:
            return None
        try:
            data = json.loads(text)
        except ValueError as error:
            raise NotAStream("an event does not hold JSON") from error
        if not isinstance(data, dict):
            raise NotAStream("an event does not hold an object")
        return ServerEvent(name, data, self._id)
