"""What data planes report, taken into the targets in the transaction that the link records it in.

Registered with `planes.link.Links` as an `ObservedSink`. Reports arrive in order
within a session, so the last one holds.
"""

from __future__ import annotations

from dataclasses import replace

from minuet.control.catalog import store as catalog
from minuet.control.catalog.controller import HOLD_RELEASED
from minuet.control.delivery import model, service, store
from minuet.control.delivery.model import TOMBSTONE, Target
from minuet.control.planes import log
from minuet.control.planes.model import DataPlane
from minuet.infra.database import Transaction
from minuet.infra.events import Event
from minuet.kernel.clock import Clock
from minuet.protocol.observed import ObservedInstance, ObservedWorkload

MAX_INSTANCES = 2 * model.MAX_REPLICAS + 5
MAX_CONDITIONS = 20
MAX_TAIL = 20
MAX_TEXT = 2000
MAX_WORD = 100


class Observations:
    """The sink of delivery; one per server process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def observed(
        self, tx: Transaction, plane: DataPlane, workloads: tuple[ObservedWorkload, ...], *, full: bool
    ) -> None:
        """Takes what the agent saw; with `full`, workloads that are not named do not exist there."""
        for seen in workloads:
            target = await store.target_by_key(tx, plane.id, seen.key)
            if target is not None:
                await self._take(tx, target, seen)
        if full:
            named = {seen.key for seen in workloads}
            for target in await store.targets_of_plane(tx, plane.id):
                if target.key not in named:
                    await self._take_absence(tx, plane, target)

    async def link_changed(self, tx: Transaction, plane: DataPlane, *, connected: bool) -> None:  # noqa: ARG002 - both directions change what is known
        """Tells the readers of every target that what is known of it changed."""
        for target in await store.targets_of_plane(tx, plane.id):
            service.announce(tx, target, service.CHANGED)

    async def _take(self, tx: Transaction, target: Target, seen: ObservedWorkload) -> None:
        if seen.removed:
            await self._gone(tx, target)
            return
        now = self._clock.now()
        changed = replace(target, observed=bounded(seen), observed_at=now)
        await store.put_target(tx, changed)
        if target.current_id is not None:
            deployment = await store.deployment_by_id(tx, target.organization_id, target.current_id)
            if deployment is not None and deployment.ready_at is None and model.is_ready(deployment, changed):
                await store.mark_ready(tx, deployment, now)
        service.announce(tx, changed, service.CHANGED)

    async def _take_absence(self, tx: Transaction, plane: DataPlane, target: Target) -> None:
        held = (plane.acknowledged_epoch, plane.acknowledged_revision)
        is_told = target.appended_id == TOMBSTONE and held >= (target.appended_epoch, target.appended_revision)
        if target.current_id is None and is_told:
            await self._gone(tx, target)
        elif target.observed is not None:
            await store.put_target(tx, replace(target, observed=None, observed_at=self._clock.now()))
            service.announce(tx, target, service.CHANGED)

    async def _gone(self, tx: Transaction, target: Target) -> None:
        """Nothing of it runs there any more: unless it was deployed again meanwhile, the component is let go."""
        if target.current_id is not None or target.appended_id != TOMBSTONE:
            await store.put_target(tx, replace(target, observed=None, observed_at=self._clock.now()))
        else:
            await release(tx, target)
        service.announce(tx, target, service.CHANGED)


async def release(tx: Transaction, target: Target) -> None:
    """Forgets what ran with its tombstone, and releases the hold that kept the component for it."""
    await log.forget_removed(tx, target.plane_id, [target.key])
    # The row stays while the component does: its generation must never start again at 1.
    await store.put_target(tx, replace(target, observed=None, appended_id=None, removed_by=None, addresses=()))
    holder = service.holder_of(target.environment_id)
    await catalog.release_hold(tx, target.organization_id, target.component_id, holder)
    tx.emit(Event(HOLD_RELEASED, target.organization_id, target.component_id, {"holder": holder}))


def bounded(seen: ObservedWorkload) -> ObservedWorkload:
    """Returns a report whose lists and texts have a limit, whatever the agent sent."""
    conditions = tuple(
        item.model_copy(
            update={
                "reason": item.reason[:MAX_WORD],
                "message": item.message[:MAX_TEXT],
                "log_tail": tuple(line[:MAX_TEXT] for line in item.log_tail[-MAX_TAIL:]),
            }
        )
        for item in seen.conditions[:MAX_CONDITIONS]
    )
    instances = tuple(_bounded_instance(item) for item in seen.instances[:MAX_INSTANCES])
    release = None if seen.serving_release is None else seen.serving_release[:MAX_WORD]
    return seen.model_copy(update={"conditions": conditions, "instances": instances, "serving_release": release})


def _bounded_instance(item: ObservedInstance) -> ObservedInstance:
    words = ("id", "template", "reason", "address", "isolation")
    cut = {word: value[:MAX_WORD] for word in words if isinstance(value := getattr(item, word), str)}
    message = None if item.message is None else item.message[:MAX_TEXT]
    return item.model_copy(update={**cut, "message": message})
