"""What the agent asks of whatever runs instances; every driver answers to the same suite of tests."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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


@dataclass(frozen=True, slots=True)
class InstanceState:
    """One instance as it stands. `address` is what the gateway dials; `reason` is of the catalogue."""

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
