"""Values that must not be printed, and text from which they are removed."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable


class Secret:
    """A text that shows itself only where `reveal()` is written out."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Returns the text; the call site answers for where it goes."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(("Secret", self._value))


def new_token(prefix: str) -> Secret:
    """Returns a bearer token of 256 random bits; the prefix lets scanners find leaks."""
    return Secret(f"{prefix}_{secrets.token_urlsafe(32)}")


def token_hash(token: str) -> str:
    """Returns what is stored of a token: enough to recognise it, not enough to use it."""
    return hashlib.sha256(token.encode()).hexdigest()


def redact(text: str, values: Iterable[Secret], mask: str = "***") -> str:
    """Removes every occurrence of the given secrets from a text."""
    for value in values:
        if value.reveal():
            text = text.replace(value.reveal(), mask)
    return text
