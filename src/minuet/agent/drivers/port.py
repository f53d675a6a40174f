"""What the agent asks of whatever runs workloads: processes, pods, or memory in a simulation."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from minuet.protocol.desired import Artifact, Workload
from minuet.protocol.observed import InstancePhase


@dataclass(frozen=True)
class InstanceSpec:
    """One instance to run. `id` is short and unique; `layers` are folders and where they are seen."""

    id: str
    workload: Workload
    generation: int
    root: Path
    layers: tuple[tuple[Path, str], ...]


@dataclass(frozen=True)
class InstanceState:
    """One instance as it was seen. `address` can be dialled from the gateway."""

    id: str
    workload_key: str
    template: str
    generation: int
    phase: InstancePhase
    ready: bool
    address: str | None = None
    restarts: int = 0
    started_at: datetime.datetime | None = None
    exit_code: int | None = None
    reason: str | None = None
    message: str | None = None
    log_tail: tuple[str, ...] = ()
    isolation: str = ""


class Driver(Protocol):
    """Every method is idempotent; errors are `Retry` or `GiveUp`."""

    isolation: str

    async def start(self, spec: InstanceSpec) -> None: ...

    async def stop(self, instance_id: str, grace: float) -> None: ...

    async def remove(self, instance_id: str) -> None: ...

    async def observe(self) -> tuple[InstanceState, ...]: ...

    async def changed(self) -> None: ...

    async def ensure_artifact(self, artifact: Artifact) -> tuple[tuple[Path, str], ...]: ...

    async def prune_artifacts(self, keep: frozenset[str]) -> None: ...
