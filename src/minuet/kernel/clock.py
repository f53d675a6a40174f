"""Time as a port, so that the reconcile core can run under a simulated clock."""

from __future__ import annotations

import datetime
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for people, monotonic time for measuring."""

    def now(self) -> datetime.datetime:
        """The current moment, always in UTC."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never jumps."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def rfc3339(moment: datetime.datetime) -> str:
    """Formats a UTC moment as the API and the logs show it, to the millisecond."""
    return moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
