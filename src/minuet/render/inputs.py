"""What a workload is rendered from: values that delivery reads from its stores and hands over.

Separate from `workload.py`, so that tests and delivery share the words without
the rules.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from minuet.protocol.descriptor import Descriptor
from minuet.protocol.desired import Artifact, Resources, SealedValue

DEFAULT_RESOURCES = Resources(cpu=0.5, memory=1024 * 1024 * 1024)
"""Half a core and 1024 MiB: the limits that the reference gives a component nobody sized."""


class ComponentType(enum.StrEnum):
    """How a component is run and what it exposes."""

    SERVICE = "service"
    WEB_APPLICATION = "web-application"
    WEBHOOK = "webhook"
    EVENT_HANDLER = "event-handler"


class EntryKind(enum.StrEnum):
    """How a configured value reaches the application."""

    VARIABLE = "variable"
    SECRET = "secret"  # noqa: S105 - the word for a kind, not a secret
    FILE = "file"
    SECRET_FILE = "secret-file"  # noqa: S105 - the word for a kind, not a secret

    @property
    def is_secret(self) -> bool:
        """Whether its value is never shown again."""
        return self in (EntryKind.SECRET, EntryKind.SECRET_FILE)

    @property
    def is_file(self) -> bool:
        """Whether it is mounted instead of set."""
        return self in (EntryKind.FILE, EntryKind.SECRET_FILE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One configured value. `value` is None for secrets; `version` rises when the value is set again."""

    name: str
    kind: EntryKind
    version: int
    value: str | None = None
    mount_path: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Which component in which environment: names for people and hosts, ids for the key."""

    organization: str
    project: str
    component: str
    component_id: str
    environment: str
    environment_id: str
    domain: str

    @property
    def key(self) -> str:
        """The key of the document on the data plane."""
        return f"{self.component_id}/{self.environment_id}"


@dataclass(frozen=True, slots=True)
class Built:
    """What a build left: the artifact with the way to fetch it, how to start it, what the descriptor said.

    `port` is what the buildpack found the application to listen on; `configured_port`
    is `buildConfigs.port` of the build.
    """

    component_type: ComponentType
    artifact: Artifact
    command: str
    descriptor: Descriptor
    port: int | None = None
    configured_port: int | None = None
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of it runs; suspended means none, while its routes stay and answer 503."""

    replicas: int = 1
    suspended: bool = False
    resources: Resources = DEFAULT_RESOURCES


@dataclass(frozen=True, slots=True)
class Identity:
    """Which deployment asks for it."""

    deployment: str
    generation: int
    release: str
    restart: str = ""


Sealer = Callable[[Entry, str], SealedValue]
"""Returns a secret's ciphertext for the data plane, bound to a context.

It must give the same ciphertext for the same version of the same entry, or
every rendering would replace every instance.
"""
