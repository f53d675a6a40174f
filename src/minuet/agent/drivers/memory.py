"""Instances that exist only in memory: real enough to test reconciling and to measure thousands.

An instance becomes ready after `delay` seconds of the given clock's loop time,
unless its command says otherwise: `exit` exits at once, again and again, and
`hang` never becomes ready.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from minuet.agent.drivers.port import InstanceSpec, InstanceState, Layers
from minuet.kernel.retry import GiveUp, Retry
from minuet.protocol.desired import Artifact
from minuet.protocol.observed import InstancePhase

_EXITS_SHOWN = 3
_RETRY_SECONDS = 1.0


class MemoryDriver:
    """Keeps instances in a dictionary and tells when it changed."""

    isolation = "none"

    def __init__(self, delay: float = 0.0) -> None:
        self._delay = delay
        self._instances: dict[str, InstanceState] = {}
        self._unpacked: dict[str, Layers] = {}
        self._uses: dict[str, Layers] = {}
        self._started = 0
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.stopped: list[str] = []

    async def ensure_artifact(self, artifact: Artifact) -> Layers:
        layers = tuple((Path("/nowhere") / layer.digest, layer.target) for layer in artifact.layers)
        self._unpacked[artifact.digest] = layers
        return layers

    async def start(self, spec: InstanceSpec) -> None:
        if spec.id in self._instances:
            return
        if spec.workload.command == "refuse":
            raise GiveUp("StartFailed", "the command asks to be refused")
        there = {layer for layers in (*self._unpacked.values(), *self._uses.values()) for layer in layers}
        if not there.issuperset(spec.layers):
            raise Retry("a layer of it is not unpacked here", _RETRY_SECONDS, "LayerMissing")
        self._uses[spec.id] = spec.layers
        workload = spec.workload
        address = f"10.{self._started // 62500}.{self._started // 250 % 250}.{self._started % 250 + 1}"
        self._started += 1
        state = InstanceState(
            spec.id, workload.key, workload.template, workload.generation, InstancePhase.STARTING, address=address
        )
        self._put(state)
        task = asyncio.create_task(self._grow_up(spec))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self, instance_id: str, grace: float) -> None:  # noqa: ARG002 - nothing here needs a grace
        if state := self._instances.get(instance_id):
            self.stopped.append(instance_id)
            self._put(replace(state, phase=InstancePhase.STOPPED, ready=False))

    async def remove(self, instance_id: str) -> None:
        self._instances.pop(instance_id, None)
        self._uses.pop(instance_id, None)
        self._changed.set()

    async def observe(self) -> tuple[InstanceState, ...]:
        self._changed.clear()
        return tuple(self._instances.values())

    async def changed(self) -> None:
        await self._changed.wait()

    async def prune_artifacts(self, keep: frozenset[str]) -> None:
        self._unpacked = {digest: layers for digest, layers in self._unpacked.items() if digest in keep}

    async def forget(self, workload_key: str) -> None: ...

    def crash(self, instance_id: str) -> None:
        """Lets an instance end as if by itself; it is started again at once."""
        state = self._instances[instance_id]
        self._put(replace(state, ready=False, restarts=state.restarts + 1, exit_code=1, phase=InstancePhase.RUNNING))
        self._put(replace(self._instances[instance_id], ready=True))

    async def _grow_up(self, spec: InstanceSpec) -> None:
        await asyncio.sleep(self._delay)
        state = self._instances.get(spec.id)
        if state is None or state.phase is not InstancePhase.STARTING:
            return
        if spec.workload.command == "exit":
            self._put(
                replace(state, phase=InstancePhase.BACKOFF, restarts=_EXITS_SHOWN, exit_code=1, reason="ExitedAtOnce")
            )
        elif spec.workload.command == "hang":
            self._put(replace(state, phase=InstancePhase.RUNNING, reason="NotListening"))
        else:
            self._put(replace(state, phase=InstancePhase.RUNNING, ready=True))

    def _put(self, state: InstanceState) -> None:
        self._instances[state.id] = state
        self._changed.set()
