"""The base of every document that crosses the link."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Document(BaseModel):
    """Frozen, camelCase on the wire, tolerant of fields a newer peer added."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")

    def wire(self) -> str:
        """Returns the JSON text that goes over the link."""
        return self.model_dump_json(by_alias=True, exclude_none=True)
