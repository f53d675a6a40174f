"""A data plane without processes: the real loop and inventory over instances and routes that live in memory."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from minuet.agent.drivers.memory import MemoryDriver
from minuet.agent.drivers.port import InstanceState
from minuet.agent.inventory import Contents, Inventory
from minuet.agent.model import WorkloadPlan
from minuet.agent.observe import Observations
from minuet.agent.reconcile import Reconciler
from minuet.gateway.admission import Admitted, admit
from minuet.gateway.model import RoutingTable
from minuet.kernel.conditions import ConditionType
from minuet.kernel.retry import GiveUp, Retry
from minuet.protocol.desired import Change, Revision
from minuet.protocol.observed import ObservedCondition, ObservedWorkload

SECONDS = 10.0


class QuickClock:
    """A clock that runs fifty times as fast, so that waiting for minutes takes seconds."""

    def __init__(self, speed: float = 50.0) -> None:
        self._speed = speed

    def now(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC)

    def monotonic(self) -> float:
        return time.monotonic() * self._speed


class MemoryGateway:
    """Has the last table, counts what a test says is in flight, and refuses when told to."""

    def __init__(self) -> None:
        self.table = RoutingTable()
        self.tables: list[RoutingTable] = []
        self.in_flight: dict[str, int] = {}
        self.trouble: Retry | GiveUp | None = None
        self.gate: asyncio.Event | None = None

    async def apply(self, table: RoutingTable, removed_hosts: frozenset[str] = frozenset()) -> Admitted:
        if self.gate is not None:
            await self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        admitted = admit(table, {route.host: route.owner for route in self.table.routes})
        self.table = admitted.table
        self.tables.append(admitted.table)
        return admitted

    async def active_requests(self, backend: str) -> int | None:
        return next((count for part, count in self.in_flight.items() if backend.endswith(part)), 0)

    def addresses(self, host: str) -> set[str]:
        """Where a request for the host goes."""
        backends = {route.backend for route in self.table.routes if route.host == host}
        return {endpoint.address for b in self.table.backends if b.key in backends for endpoint in b.endpoints}


class Plane:
    """One data plane; the agent in it can end and come back while instances, routes and inventory stay."""

    def __init__(self, directory: Path, driver: MemoryDriver, gateway: MemoryGateway | None = None) -> None:
        self.driver = driver
        self.gateway = gateway or MemoryGateway()
        self.inventory = Inventory(directory)
        self.clock = QuickClock()
        self.told: dict[str, ObservedWorkload] = {}
        self._observations = Observations(self.clock)
        self.reconciler = self._reconciler()

    def declare(self, *changes: Change) -> None:
        """Accepts the next revision, as the link would."""
        position = self.inventory.position
        fields = {"revision": position.revision + 1, "previous": position.revision, "changes": changes}
        self.inventory.accept(Revision(plane="default", epoch=1, snapshot=position.epoch == 0, **fields))
        self.reconciler.poke()

    @contextlib.asynccontextmanager
    async def agent(self) -> AsyncIterator[None]:
        """Runs one life of the agent: what it only knew in memory is lost at its end."""
        self.reconciler = self._reconciler()
        task = asyncio.create_task(self.reconciler.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def condition(self, kind: ConditionType, key: str = "cmp_1/env_1") -> ObservedCondition | None:
        observed = self.told.get(key)
        return next((c for c in observed.conditions if c.type is kind), None) if observed else None

    def ready(self, generation: int, key: str = "cmp_1/env_1") -> bool:
        """Whether this generation was told to serve."""
        condition = self.condition(ConditionType.READY, key)
        return (
            condition is not None
            and condition.reason == "Ready"
            and self.told[key].generation == self.told[key].serving_generation == generation
        )

    def failed(self, generation: int, key: str = "cmp_1/env_1") -> bool:
        memory = self.inventory.contents().memories.get(key)
        return memory is not None and memory.failure is not None and memory.failure.generation == generation

    def _reconciler(self) -> Reconciler:
        return Reconciler(self.inventory, self.driver, self.gateway, self.clock, self._note)

    def _note(
        self, plans: Mapping[str, WorkloadPlan], instances: Mapping[str, tuple[InstanceState, ...]], contents: Contents
    ) -> None:
        self._observations.note(plans, instances, contents)
        self.told = {observed.key: observed for observed in self._observations.everything()}


async def until(holds: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Waits for a condition; fails when it does not hold in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "this did not become true in time"
        await asyncio.sleep(0.005)
