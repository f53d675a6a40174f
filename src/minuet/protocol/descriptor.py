"""What `.choreo/component.yaml` said, normalised; it travels with the build and its releases.

The builder parses and validates the file (versions 1.0, 1.1 and 1.2); the
control plane keeps this form and never reads the YAML again.
"""

from __future__ import annotations

import enum
from typing import Any

from pydantic import Field

from minuet.protocol.base import Document
from minuet.protocol.desired import Port


class EndpointType(enum.StrEnum):
    REST = "REST"
    GRAPHQL = "GraphQL"
    WS = "WS"
    GRPC = "GRPC"
    TCP = "TCP"
    UDP = "UDP"


class Visibility(enum.StrEnum):
    PROJECT = "Project"
    ORGANIZATION = "Organization"
    PUBLIC = "Public"


class Endpoint(Document):
    """One network-exposed function of a component."""

    name: str
    display_name: str = ""
    type: EndpointType = EndpointType.REST
    base_path: str = "/"
    port: Port
    visibilities: tuple[Visibility, ...] = (Visibility.PUBLIC,)
    schema_file_path: str | None = None


class ConfigField(Document):
    """One `configForm` entry: a value asked for per environment."""

    name: str
    display_name: str = ""
    type: str = "string"
    required: bool = True
    values: tuple[str, ...] = ()


class ConnectionVariable(Document):
    """A variable that is filled with one key of a connection."""

    name: str
    connection: str
    key: str


class Descriptor(Document):
    """The whole file. `connections`, `dependencies`, `files` and `proxy` are validated, kept, and not yet acted on."""

    schema_version: str = "1.2"
    endpoints: tuple[Endpoint, ...] = ()
    environment: tuple[ConfigField, ...] = ()
    connections: tuple[ConnectionVariable, ...] = ()
    dependencies: dict[str, Any] = Field(default_factory=dict)
    files: tuple[dict[str, Any], ...] = ()
    proxy: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
