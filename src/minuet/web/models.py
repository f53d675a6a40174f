"""Bases of what the API takes and gives: camelCase, closed, with the nearest key for an unknown one."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, PlainSerializer, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import InitErrorDetails, PydanticCustomError

from minuet.kernel.clock import rfc3339
from minuet.kernel.names import nearest

Item = TypeVar("Item")

Timestamp = Annotated[datetime.datetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]
"""A moment as every answer shows it: UTC, to the millisecond, with `Z`."""


class Model(BaseModel):
    """What the API gives: snake_case inside, camelCase on the wire."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Input(Model):
    """What the API takes: an unknown key is refused, with the one that was probably meant."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=False, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        known = [field.alias or name for name, field in cls.model_fields.items()]
        unknown = [key for key in value if key not in known]
        if unknown:
            raise ValidationError.from_exception_data(
                cls.__name__, [_unknown(key, value[key], known) for key in unknown]
            )
        return value


class Listing(Model, Generic[Item]):
    """One page of a list; `next` is the cursor of the following page, if there is one."""

    items: list[Item]
    next: str | None = None


def _unknown(key: str, value: Any, known: list[str]) -> InitErrorDetails:
    close = nearest(key, known)
    context = {"known": sorted(known)} | ({"nearest": close} if close else {})
    return InitErrorDetails(
        type=PydanticCustomError("unknown_key", "is not a known key", context), loc=(key,), input=value
    )
