"""What a buildpack is: it recognises a source and plans how to build it; the pipeline does the doing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from minuet.builders.failure import BuildFailure
from minuet.builders.tree import Tree
from minuet.launcher.client import Mount
from minuet.protocol.building import BuildpackOffer

Packages = Callable[[Path], Iterator[tuple[str, str, str]]]
Explain = Callable[[str], BuildFailure]

WORK = "/work"
"""A folder on the disk that every step may write and that nothing keeps: for caches and scratch copies."""

_SERVICES, _WEB = ("service", "webhook", "event-handler"), ("web-application",)


def served(name: str, versions: tuple[str, ...], *optional: str) -> tuple[BuildpackOffer, ...]:
    """What a language offers in these versions, newest first; nothing without any.

    A web application has no descriptor that would say its port, so that its build configs must.
    """
    if not versions:
        return ()
    offer = BuildpackOffer(name=name, versions=versions, default_version=versions[0], component_types=_SERVICES,
                           required=("buildPackLangVersion",), optional=(*optional, "port"))  # fmt: skip
    web = {"component_types": _WEB, "required": ("buildPackLangVersion", "port"), "optional": optional}
    return offer, offer.model_copy(update=web)


@dataclass(frozen=True, slots=True)
class Request:
    """What a buildpack may look at: the component's directory and what was configured for it."""

    tree: Tree
    config: Mapping[str, str]
    port: int | None
    commit: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a build. `explain` turns the last lines of a failure into a reason."""

    argv: tuple[str, ...]
    explain: Explain
    cwd: str = "/app"
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    fetches: bool = False


@dataclass(frozen=True, slots=True)
class DependencyLayer:
    """Dependencies or a toolchain, made once for each `key` (lock file, version) and seen at `target`.

    Its own steps see it at `made_at`, where that is another place. A layer for
    the build is shown, writable and as a copy, to the later layers' and the
    build's steps; one for the launch becomes part of the artifact.
    """

    name: str
    target: str
    key: str
    steps: tuple[Step, ...]
    packages: Packages
    made_at: str | None = None
    for_build: bool = False
    for_launch: bool = True
    after_build: bool = False
    """Whether the launch gets it as the build left it, where a build's own scripts change what was installed."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A command that tells what went into the build's output; `parse` makes packages of what it prints."""

    step: Step
    parse: Callable[[str], Iterator[tuple[str, str, str]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the pipeline needs to build and the data plane to run."""

    toolchain: str
    command: str
    layers: tuple[DependencyLayer, ...] = ()
    steps: tuple[Step, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Path] = field(default_factory=dict)
    """Files of the platform's own that become a layer of their own: where, and which file."""
    listing: Listing | None = None
    output: tuple[str, ...] = ()
    """Where, in the component's directory, a folder with an index page may lie that alone is exported."""
    emptied: tuple[str, ...] = ()
    """Folders of the source that are replaced by empty ones, because a layer is shown there."""
    leave_out: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()


class Buildpack(Protocol):
    """One language or kind of source."""

    @property
    def name(self) -> str: ...

    def offers(self) -> tuple[BuildpackOffer, ...]:
        """What can be had on this machine for which component types; nothing when nothing can."""

    def detect(self, tree: Tree) -> str | None:
        """Why the source is this buildpack's, or None."""

    def plan(self, request: Request) -> Plan:
        """How to build it; raises `BuildFailure` for a source that cannot be."""
