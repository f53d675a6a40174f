"""Logs as lines, each exactly once, also when the connection broke in between.

Called by the commands that show logs. Separate because only logs are read with
a memory of what was seen: a line has no id, but it has a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from minuet.client.api import Api, Json

_MAX_TAIL = 10_000


def lines(server: Api, place: str, **params: Any) -> Iterator[Json]:
    """Yields the lines of a log as the server sends them, until it says that this was the end."""
    seen = _Seen(has_tail="tail" in params)
    for event, line in server.events(place, resume=seen.resume, **params):
        if event == "line" and seen.is_new(line):
            yield line


class _Seen:
    """What the newest moment seen was, and which lines of that very moment were."""

    def __init__(self, *, has_tail: bool) -> None:
        self._has_tail = has_tail
        self._newest = ""
        self._of_newest: Counter[str] = Counter()
        self._again: Counter[str] = Counter()
        self._until = ""

    def resume(self) -> Json:
        """Called after a break: what comes now was seen, up to here."""
        self._until, self._again = self._newest, self._of_newest.copy()
        if not self._newest:
            return {}
        return {"since": self._newest} | ({"tail": _MAX_TAIL} if self._has_tail else {})

    def is_new(self, line: Json) -> bool:
        time, mark = str(line.get("time", "")), f"{line.get('instance')} {line.get('message')}"
        if self._until and time < self._until:
            return False
        if time == self._until and self._again[mark] > 0:
            self._again[mark] -= 1
            return False
        if time > self._newest:
            self._newest = time
            self._of_newest.clear()
        if time == self._newest:
            self._of_newest[mark] += 1
        return True
