"""What the agent tells: one `ObservedWorkload` per workload, sent only when it changed.

`since` of a condition moves only when its status does. Reports are collected
for a moment, so that a burst of changes is one frame.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from minuet.agent import story
from minuet.agent.drivers.port import InstanceState
from minuet.agent.inventory import Contents
from minuet.agent.model import WorkloadPlan
from minuet.kernel.clock import Clock
from minuet.kernel.conditions import Condition, merge
from minuet.protocol.observed import ObservedCondition, ObservedInstance, ObservedWorkload

COALESCE_SECONDS = 0.05


class Observations:
    """The latest observation of each workload, and which of them were not reported yet."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._conditions: dict[str, tuple[Condition, ...]] = {}
        self._latest: dict[str, ObservedWorkload] = {}
        self._unsent: set[str] = set()
        self._removed: set[str] = set()
        self._news = asyncio.Event()
        self._looked = asyncio.Event()

    def note(
        self,
        plans: Mapping[str, WorkloadPlan],
        instances: Mapping[str, tuple[InstanceState, ...]],
        contents: Contents,
    ) -> None:
        """Takes in one round of the reconciler."""
        self._looked.set()
        for key in sorted({*plans, *contents.aside}):
            observed = self._observe(key, plans.get(key, WorkloadPlan()), instances.get(key, ()), contents)
            if observed is not None and observed != self._latest.get(key):
                self._latest[key] = observed
                self._unsent.add(key)
                self._news.set()

    async def first_look(self) -> None:
        """Waits until there was one: before that, nothing being known means nothing."""
        await self._looked.wait()

    async def news(self) -> tuple[ObservedWorkload, ...]:
        """Waits for changes and returns them; call `sent` once they are on their way."""
        await self._news.wait()
        await asyncio.sleep(COALESCE_SECONDS)
        self._news.clear()
        found = tuple(self._latest[key] for key in sorted(self._unsent))
        self._unsent.clear()
        return found

    def everything(self) -> tuple[ObservedWorkload, ...]:
        """All there is, for a link that is new."""
        self._unsent.clear()
        self._news.clear()
        return tuple(self._latest[key] for key in sorted(self._latest))

    def removals(self) -> tuple[str, ...]:
        """Workloads reported as removed; their documents may be forgotten."""
        return tuple(key for key, item in self._latest.items() if item.removed and key not in self._unsent)

    def drop(self, key: str) -> None:
        """Forgets a workload whose removal was reported."""
        for store in (self._latest, self._conditions):
            store.pop(key, None)
        with contextlib.suppress(KeyError):
            self._unsent.remove(key)

    def _observe(
        self, key: str, plan: WorkloadPlan, instances: tuple[InstanceState, ...], contents: Contents
    ) -> ObservedWorkload | None:
        desired = contents.workloads.get(key)
        unreadable = contents.aside.get(key)
        if desired is None and unreadable is None and not plan.removed and not plan.conditions:
            return None
        known = self._conditions.get(key, ())
        spoken_of = unreadable or desired
        generation = spoken_of.generation if spoken_of else 0
        fresh = (story.unreadable(unreadable, self._clock.now()),) if unreadable else plan.conditions
        conditions = merge((c for c in known if c.generation == generation), fresh)
        self._conditions[key] = conditions
        serving = contents.memories[key].serving if key in contents.memories else None
        if plan.memory.serving is not None and desired and plan.memory.serving.generation == desired.generation:
            serving = plan.memory.serving
        return ObservedWorkload(
            key=key,
            generation=generation,
            serving_generation=serving.generation if serving else None,
            serving_release=serving.release if serving else None,
            conditions=tuple(_on_the_wire(condition) for condition in conditions),
            instances=tuple(_instance(state) for state in instances),
            removed=plan.removed,
        )


def _on_the_wire(condition: Condition) -> ObservedCondition:
    return ObservedCondition(
        type=condition.type,
        status=condition.status,
        reason=condition.reason,
        message=condition.message,
        since=condition.since,
        log_tail=condition.log_tail,
    )


def _instance(state: InstanceState) -> ObservedInstance:
    return ObservedInstance(
        id=state.id,
        template=state.template,
        generation=state.generation,
        phase=state.phase,
        ready=state.ready,
        restarts=state.restarts,
        started_at=state.started_at,
        exit_code=state.exit_code,
        reason=state.reason,
        message=state.message,
        address=state.address,
        isolation=state.isolation,
    )
