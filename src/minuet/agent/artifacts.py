"""Which artifacts are unpacked on this host, and the tasks that bring the others. The reconciler asks it.

Separate from the loop, because a fetch takes as long as it takes and must hold
up nobody; the driver does the fetching.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from minuet.agent.drivers.port import Layers
from minuet.agent.inventory import Contents
from minuet.agent.model import ArtifactState
from minuet.infra.telemetry import logger
from minuet.kernel.clock import Clock
from minuet.kernel.reasons import REASONS
from minuet.kernel.retry import Backoff, GiveUp, Retry
from minuet.protocol.desired import Artifact

HOPEFUL_SECONDS = 60.0
"""How long a fetch that does not succeed is told as still going on; a builder that was restarted is back by then."""

_BROKEN_SECONDS = 5.0

_log = logger(__name__)


class Fetching(Protocol):
    """What this needs of the driver."""

    async def ensure_artifact(self, artifact: Artifact) -> Layers: ...

    async def prune_artifacts(self, keep: frozenset[str]) -> None: ...


class Artifacts:
    """Keyed by digest; lost with the process and found again by asking the driver."""

    def __init__(self, driver: Fetching, clock: Clock, wake: Callable[[], None]) -> None:
        self._driver = driver
        self._clock = clock
        self._wake = wake
        self._states: dict[str, ArtifactState] = {}
        self._layers: dict[str, Layers] = {}
        self._asked: dict[str, Artifact] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._kept: frozenset[str] | None = None

    @property
    def states(self) -> Mapping[str, ArtifactState]:
        """How each digest stands now; it changes while others fetch, so look and plan without waiting in between."""
        return self._states

    def layers(self, digest: str) -> Layers | None:
        """Where a digest was unpacked when that was last asked; nothing when it never was."""
        return self._layers.get(digest)

    def fetch(self, artifact: Artifact) -> None:
        """Brings an artifact in a task of its own, unless one does already; the newest store and ticket count."""
        self._asked[artifact.digest] = artifact
        running = self._tasks.get(artifact.digest)
        if running is None or running.done():
            self._tasks[artifact.digest] = asyncio.create_task(self._until_there(artifact.digest))

    def doubt(self, digest: str) -> None:
        """Something that needed it failed: whether it is there is asked again at once."""
        self._states.pop(digest, None)
        self._wake()

    def forgive(self, digest: str) -> None:
        """Gives an artifact that was given up another chance."""
        if self._states.get(digest, ArtifactState()).hopeless:
            del self._states[digest]

    async def keep(self, digests: frozenset[str]) -> None:
        """Forgets all others and lets the driver remove them; a pruning that failed is tried in the next round."""
        if digests == self._kept:
            return
        for digest in self._tasks.keys() - digests:
            self._tasks.pop(digest).cancel()
        tables: tuple[dict[str, ArtifactState] | dict[str, Layers] | dict[str, Artifact], ...] = (
            self._states, self._layers, self._asked,
        )  # fmt: skip
        for table in tables:
            for digest in table.keys() - digests:
                del table[digest]
        try:
            await self._driver.prune_artifacts(digests)
        except (Retry, GiveUp) as trouble:
            _log.warning("prune.failed", reason=str(trouble))
            return
        self._kept = digests

    def close(self) -> None:
        """Ends the tasks."""
        for task in self._tasks.values():
            task.cancel()

    async def _until_there(self, digest: str) -> None:
        attempt, troubled_since = 0, None
        while True:
            attempt += 1
            try:
                self._layers[digest] = await self._driver.ensure_artifact(self._asked[digest])
                self._tell(digest, ArtifactState(present=True, reason="Fetched"))
                return
            except GiveUp as error:
                self._tell(digest, ArtifactState(reason=error.reason, message=error.message, hopeless=True))
                return
            except Retry as retry:
                trouble = retry
            except Exception:  # noqa: BLE001 - a defect that one artifact brings out; it is logged and tried again
                _log.exception("fetch.broke", digest=digest)
                trouble = Retry("fetching it met a defect of the agent; its log says more", _BROKEN_SECONDS)
            now = self._clock.monotonic()
            troubled_since = now if troubled_since is None else troubled_since
            self._tell(digest, _troubled(trouble, now - troubled_since))
            await asyncio.sleep(max(trouble.after, Backoff(base=0.2, cap=15.0).delay(attempt)))

    def _tell(self, digest: str, state: ArtifactState) -> None:
        self._states[digest] = state
        self._wake()


def kept(contents: Contents) -> frozenset[str]:
    """What must stay unpacked: what is to run, what serves, and each workload's way back. Pure."""
    desired = {workload.artifact.digest for workload in contents.workloads.values()}
    serving = {memory.serving.artifact.digest for memory in contents.memories.values() if memory.serving}
    return frozenset(desired | serving | {digest for recent in contents.recent.values() for digest in recent})


def _troubled(trouble: Retry, lasted: float) -> ArtifactState:
    """Going on for a while, since most trouble passes by itself; then what it is."""
    if lasted < HOPEFUL_SECONDS:
        return ArtifactState(reason="Fetching", message=trouble.reason)
    reason = trouble.code if trouble.code in REASONS else None
    return ArtifactState(reason=reason or "ArtifactUnavailable", message=trouble.reason)
