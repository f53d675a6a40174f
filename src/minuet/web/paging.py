"""Lists in pages: a limit, and an opaque cursor that names the last row of the page before.

A cursor carries the sort key of that row and the list it belongs to; one that
was made up or comes from another list is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Query, Request

from minuet.kernel.errors import Invalid, invalid_field

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
_MAX_CURSOR = 600
_MAX_DIGITS = 9
"""Digits of a number that fits a column of either database."""

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page:
    """What was asked for: at most `limit` rows whose key follows `after`."""

    limit: int
    after: str | None
    path: str

    @property
    def fetch(self) -> int:
        """Rows to read: one more than is shown tells whether there is a following page."""
        return self.limit + 1

    def number(self) -> int | None:
        """Returns the key of a list that is sorted by numbers; raises `Invalid` for a cursor that holds none."""
        if self.after is None:
            return None
        if not self.after.isdigit() or len(self.after) > _MAX_DIGITS:
            raise _bad()
        return int(self.after)

    def cut(self, rows: Sequence[Row], key: Callable[[Row], str]) -> tuple[list[Row], str | None]:
        """Returns the rows to show and the cursor of the following page."""
        shown = list(rows[: self.limit])
        if len(rows) <= self.limit:
            return shown, None
        return shown, _encode(self.path, key(shown[-1]))


def _page(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items on one page.")] = DEFAULT_LIMIT,
    cursor: Annotated[
        str | None, Query(max_length=_MAX_CURSOR, description="`next` of the page before; opaque.")
    ] = None,
) -> Page:
    path = request.url.path
    return Page(limit, None if cursor is None else _decode(path, cursor), path)


Paging = Annotated[Page, Depends(_page)]
"""The page that a request asks for."""


def _encode(path: str, key: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([path, key]).encode()).decode().rstrip("=")


def _decode(path: str, cursor: str) -> str:
    try:
        made_for, key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise _bad() from error
    # Lists are sorted by names, ids and numbers, all of which are ASCII.
    if made_for != path or not isinstance(key, str) or not (key.isascii() and key.isprintable()):
        raise _bad()
    return key


def _bad() -> Invalid:
    return invalid_field("cursor", "is not a cursor of this list", hint="use `next` of the page before, unchanged")
