"""Reads what applications wrote: JSON lines in segments, one directory per workload.

The shims write the segments and rotate them; this only reads, also while they
write. A query is bounded by its tail; following ends with its reader.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

from minuet.protocol.frames import LogLine, LogQuery

_LOOK_SECONDS = 0.1
_CHUNK_LINES = 500
_BLOCK_BYTES = 64 * 1024


class LogStore:
    """All workloads' logs below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def answer(self, query: LogQuery) -> AsyncIterator[tuple[LogLine, ...]]:
        """Yields lines in chunks: the tail first, then, if asked to follow, what comes."""
        places = await asyncio.to_thread(self._places, query.key)
        lines = await asyncio.to_thread(self._tail, query)
        for start in range(0, len(lines), _CHUNK_LINES):
            yield tuple(lines[start : start + _CHUNK_LINES])
        while query.follow:
            await asyncio.sleep(_LOOK_SECONDS)
            fresh = [line for line in await asyncio.to_thread(self._news, query.key, places) if _wanted(line, query)]
            if fresh:
                yield tuple(sorted(fresh, key=lambda line: line.time))

    def _tail(self, query: LogQuery) -> list[LogLine]:
        found: list[LogLine] = []
        for path in self._segments(query.key):
            lines = [line for line in _lines(_last_lines(path, query.tail)) if _wanted(line, query)]
            found += lines
        found.sort(key=lambda line: line.time)
        return found[-query.tail :] if query.tail else []

    def _places(self, key: str) -> dict[Path, int]:
        return {path: path.stat().st_size for path in self._segments(key)}

    def _news(self, key: str, places: dict[Path, int]) -> list[LogLine]:
        found: list[LogLine] = []
        for path in self._segments(key):
            start = places.get(path, 0)
            try:
                with path.open("rb") as file:
                    file.seek(start)
                    data = file.read()
            except FileNotFoundError:
                continue
            whole = data[: data.rfind(b"\n") + 1]
            places[path] = start + len(whole)
            found += _lines(whole.splitlines())
        return found

    def _segments(self, key: str) -> list[Path]:
        directory = self._directory / key.replace("/", "_")
        if not directory.is_dir():
            return []
        return sorted(path for path in directory.iterdir() if path.is_file() and path.suffix == ".jsonl")


def _last_lines(path: Path, count: int) -> list[bytes]:
    """The last lines of a file, read from its end."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            position = file.tell()
            data = b""
            while position > 0 and data.count(b"\n") <= count:
                step = min(_BLOCK_BYTES, position)
                position -= step
                file.seek(position)
                data = file.read(step) + data
    except FileNotFoundError:
        return []
    return data.splitlines()[-count:] if count else []


def _lines(raw: Iterable[bytes]) -> Iterator[LogLine]:
    """Parses lines; one that a crash cut short is left out."""
    for text in raw:
        try:
            yield LogLine.model_validate(json.loads(text))
        except ValueError:
            continue


def _wanted(line: LogLine, query: LogQuery) -> bool:
    if query.instance is not None and line.instance != query.instance:
        return False
    return query.since is None or line.time >= query.since
