"""Bases of what the API takes and gives: camelCase, closed, with the nearest key for an unknown one.

What is refused is usually shown again in the answer; a type marked
`CONFIDENTIAL` never is, and neither is anything whose place is not known.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import InitErrorDetails, PydanticCustomError

from minuet.kernel.clock import rfc3339
from minuet.kernel.names import nearest

Item = TypeVar("Item")

Timestamp = Annotated[datetime.datetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]
"""A moment as every answer shows it: UTC, to the millisecond, with `Z`."""


def _hidden(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError as error:
        found = [
            InitErrorDetails(type=PydanticCustomError(item["type"], item["msg"]), loc=item["loc"], input=None)
            for item in error.errors(include_input=False)
        ]
        raise ValidationError.from_exception_data("confidential", found) from None


CONFIDENTIAL = WrapValidator(_hidden)
"""Goes last into an `Annotated` type whose value may be a secret: what was given is not told again when it is refused."""


def _in_utc(moment: datetime.datetime) -> datetime.datetime:
    try:
        return moment.astimezone(datetime.UTC)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A moment as requests give it: with its zone, in UTC from here on."""


class Model(BaseModel):
    """What the API gives: snake_case inside, camelCase on the wire."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Input(Model):
    """What the API takes: an unknown key is refused, with the one that was probably meant, and so is NUL in any text.

    PostgreSQL keeps no NUL, and no name, path or URL holds one.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=False, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        known = [field.alias or name for name, field in cls.model_fields.items()]
        found = [_unknown(key, known) for key in value if key not in known]
        found += [_nul(place) for place in _places_of_nul(value, ())]
        if found:
            raise ValidationError.from_exception_data(cls.__name__, found)
        return value


class Listing(Model, Generic[Item]):
    """One page of a list; `next` is the cursor of the following page, if there is one."""

    items: list[Item]
    next: str | None = None


def _unknown(key: str, known: list[str]) -> InitErrorDetails:
    # The value is not told: it may be a secret whose key was misspelt.
    close = nearest(key, known)
    context = {"known": sorted(known)} | ({"nearest": close} if close else {})
    return InitErrorDetails(
        type=PydanticCustomError("unknown_key", "is not a known key", context), loc=(key,), input=None
    )


def _nul(place: tuple[str | int, ...]) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("nul", "holds a NUL character"), loc=place, input=None)


def _places_of_nul(value: Any, place: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Yields where texts hold NUL; what is inside a key that holds one is told by the key."""
    if isinstance(value, str):
        if "\x00" in value:
            yield place
    elif isinstance(value, dict):
        for key, item in value.items():
            if "\x00" in key:
                yield (*place, key.replace("\x00", "?"))
            else:
                yield from _places_of_nul(item, (*place, key))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _places_of_nul(item, (*place, position))
