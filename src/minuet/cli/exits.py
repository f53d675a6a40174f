"""Exit codes: the one table from error family to number. They never change."""

from __future__ import annotations

from minuet.kernel.errors import (
    Conflict,
    Exhausted,
    Forbidden,
    Invalid,
    MinuetError,
    NotFound,
    NotReady,
    Unauthenticated,
    Unavailable,
)

DEFECT = 1
USAGE = 2
INTERRUPTED = 130

_CODES: dict[type[MinuetError], int] = {
    Invalid: USAGE,
    NotFound: 3,
    Unauthenticated: 4,
    Forbidden: 4,
    Conflict: 5,
    NotReady: 6,
    Unavailable: 7,
    Exhausted: 8,
}


def exit_code(error: MinuetError) -> int:
    """The number for an error: 2 invalid, 3 not found, 4 not allowed, 5 conflict, 6 not ready, 7 unavailable, 8 exhausted."""
    return next((code for family, code in _CODES.items() if isinstance(error, family)), DEFECT)
