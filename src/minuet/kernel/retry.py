"""Retry as a type: what a loop may say of an error, and how long it then waits."""

from __future__ import annotations

import random
from dataclasses import dataclass


class Retry(Exception):
    """Try again after `after` seconds; `reason` is shown to people meanwhile."""

    def __init__(self, reason: str, after: float, code: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after
        self._code = code

    @property
    def code(self) -> str | None:
        """What kind of trouble it is: as given, else the code of the error that it was raised from."""
        return self._code or getattr(self.__cause__, "code", None)


class GiveUp(Exception):
    """Do not try again until the input changes."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off with full jitter; all values in seconds."""

    base: float = 0.1
    cap: float = 30.0

    def delay(self, attempt: int, rng: random.Random | None = None) -> float:
        """Seconds to wait before attempt number `attempt` (the first retry is 1)."""
        ceiling = min(self.cap, self.base * 2.0 ** min(attempt - 1, 32))
        return (rng or random).uniform(ceiling / 2, ceiling)


def next_attempt(attempt: int, lived: float, steady: float) -> int:
    """Which attempt in a row the next start is, after one (number `attempt`) that lived for `lived` seconds.

    One that lived for `steady` seconds ends the row: what fails now and then
    is started again at once, however often it happened in all its life.
    """
    return 1 if lived >= steady else attempt + 1
