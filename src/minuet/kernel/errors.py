"""The one error family of Minuet.

Every failure a person can meet is one of seven families. The family decides the
HTTP status (`web/problems.py`) and the exit code (`cli/exits.py`) in one place
each; the `code` is stable and documented; the `hint` says what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of the input that is wrong: where, what was given, what is allowed."""

    field: str
    message: str
    given: str | None = None
    allowed: tuple[str, ...] = ()


class MinuetError(Exception):
    """Base of the family; never raised itself.

    `code` is a CamelCase word that never changes once released, `message` says
    what happened and where, `hint` what the reader can do about it.
    """

    code = "Internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        violations: Iterable[Violation] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.hint = hint
        self.violations = tuple(violations)


class Invalid(MinuetError):
    """The input is wrong; the same input will fail again."""

    code = "Invalid"


class NotFound(MinuetError):
    """The thing named does not exist, or belongs to somebody else."""

    code = "NotFound"


class Unauthenticated(MinuetError):
    """Nobody, or a credential that is unknown, expired or revoked."""

    code = "Unauthenticated"


class Forbidden(MinuetError):
    """A known caller who may not do this."""

    code = "Forbidden"


class Conflict(MinuetError):
    """The state of the thing stands in the way: it exists already, or it changed."""

    code = "Conflict"


class NotReady(MinuetError):
    """It may work later without changing the request: not built yet, still starting."""

    code = "NotReady"


class Unavailable(MinuetError):
    """A part of the platform that is needed does not answer."""

    code = "Unavailable"


class Exhausted(MinuetError):
    """A limit, quota or resource is used up."""

    code = "Exhausted"


FAMILIES: tuple[type[MinuetError], ...] = (
    Invalid,
    NotFound,
    Unauthenticated,
    Forbidden,
    Conflict,
    NotReady,
    Unavailable,
    Exhausted,
)
"""The closed set; the HTTP and exit-code tables are tested against it."""


def invalid_field(
    field: str, message: str, *, given: object = None, allowed: Iterable[str] = (), hint: str | None = None
) -> Invalid:
    """An `Invalid` about exactly one field, the commonest error there is."""
    violation = Violation(field, message, None if given is None else str(given)[:200], tuple(allowed))
    return Invalid(f"{field}: {message}", hint=hint, violations=[violation])
