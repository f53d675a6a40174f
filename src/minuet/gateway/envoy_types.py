"""How Envoy's messages are written in JSON; shared by everything that makes configuration."""

from __future__ import annotations

from typing import Any

Resource = dict[str, Any]


def typed(kind: str, /, **fields: Any) -> Resource:
    """Returns a message of that type in Envoy's JSON form."""
    return {"@type": f"type.googleapis.com/{kind}", **fields}


def extension(name: str, kind: str, /, **fields: Any) -> Resource:
    """Returns a named extension with its configuration."""
    return {"name": name, "typed_config": typed(kind, **fields)}


def seconds(value: float) -> str:
    """Returns a duration in the form that Protobuf's JSON wants."""
    return f"{value:g}s"


def file_source(name: str) -> Resource:
    """Where Envoy reads a kind of resource from; the seam at which a stream will take over from files."""
    return {"path_config_source": {"path": f"./{name}"}, "resource_api_version": "V3"}
