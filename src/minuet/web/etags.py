"""Changes that notice each other: GET gives a tag of what it showed, writes may demand that it still holds."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import Header, Response
from pydantic import BaseModel

from minuet.kernel.errors import Conflict

IfMatch = Annotated[
    str | None, Header(alias="If-Match", max_length=1000, description="The ETag that the change is based on.")
]


def tag_of(shown: BaseModel | str) -> str:
    """Returns the strong tag of a representation."""
    text = shown if isinstance(shown, str) else shown.model_dump_json(by_alias=True)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:24]}"'


def put(response: Response, shown: BaseModel | str) -> None:
    """Sets the `ETag` header for what is shown."""
    response.headers["ETag"] = tag_of(shown)


def check(if_match: str | None, current: BaseModel | str) -> None:
    """Raises `Conflict` (`PreconditionFailed`, 412) unless `If-Match` is absent or names the current state."""
    if if_match is None or if_match.strip() == "*":
        return
    if tag_of(current) not in {item.strip() for item in if_match.split(",")}:
        raise Conflict(
            "it was changed since it was read", code="PreconditionFailed", hint="read it again and repeat the change"
        )
