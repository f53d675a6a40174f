"""How a phase says that the build cannot go on: a reason of the catalogue and a sentence."""

from __future__ import annotations


class BuildFailure(Exception):
    """Ends a build; the last lines of its log go with it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
