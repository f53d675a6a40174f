"""What the agent asks of whatever runs instances; every driver answers to the same suite of tests."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from minuet.gateway.model import Endpoint
from minuet.protocol.desired import Artifact, Workload
from minuet.protocol.observed import InstancePhase

Layers = tuple[tuple[Path, str], ...]
"""Unpacked layers: where each is on this host, and where the instance sees it."""


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """One instance to start. `id` is unique and short enough for a socket's path (24 characters at most)."""

    id: str
    workload: Workload
    layers: Layers


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """Where an instance is dialled: its address, and the declared ports that are others there.

    An instance without a network of its own cannot have the port it declared,
    since somebody else may have it; `ports` pairs each declared port with the real one.
    """

    address: str
    ports: tuple[tuple[int, int], ...] = ()

    def port(self, declared: int) -> int:
        """The real port behind a declared one."""
        return dict(self.ports).get(declared, declared)

    def endpoint(self, declared: int) -> Endpoint:
        """What the gateway dials for a declared port."""
        return Endpoint(self.address, self.port(declared))

    def holds(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint of the gateway is this instance's."""
        mine = not self.ports or any(endpoint.port == real for _, real in self.ports)
        return mine and endpoint.address == self.address


@dataclass(frozen=True, slots=True)
class InstanceState:
    """One instance as it stands. `address` and `ports` say where the gateway dials; `reason` is of the catalogue."""

    id: str
    workload_key: str
    template: str
    generation: int
    phase: InstancePhase
    ready: bool = False
    address: str | None = None
    restarts: int = 0
    started_at: datetime.datetime | None = None
    exit_code: int | None = None
    reason: str | None = None
    message: str | None = None
    log_tail: tuple[str, ...] = ()
    isolation: str = ""
    ports: Mapping[int, int] = field(default_factory=dict)
    """The real port of each declared one, in classes of isolation where it is another."""

    @property
    def location(self) -> Location | None:
        return Location(self.address, tuple(sorted(self.ports.items()))) if self.address else None


class Driver(Protocol):
    """Starts, stops and observes instances; raises `Retry` or `GiveUp` and nothing else on purpose."""

    @property
    def isolation(self) -> str:
        """The class of isolation in force."""

    async def ensure_artifact(self, artifact: Artifact) -> Layers:
        """Fetches, verifies and unpacks what is not there yet; idempotent, also while `prune_artifacts` runs."""

    async def start(self, spec: InstanceSpec) -> None:
        """Starts an instance; does nothing when one of that id exists.

        A `Retry` with the code `LayerMissing` says that its artifact has to be ensured again first.
        """

    async def stop(self, instance_id: str, grace: float) -> None:
        """Asks it to end, waits `grace` seconds, ends all of it; idempotent."""

    async def remove(self, instance_id: str) -> None:
        """Forgets a stopped instance; its logs stay."""

    async def observe(self) -> tuple[InstanceState, ...]:
        """Everything that exists now, also what an earlier agent started."""

    async def changed(self) -> None:
        """Returns when something changed since the last `observe`."""

    async def prune_artifacts(self, keep: frozenset[str]) -> None:
        """Removes unpacked artifacts other than the named digests, and none that is being ensured."""

    async def forget(self, workload_key: str) -> None:
        """Removes what is kept for a workload that is gone for good: its logs, its uid."""
