"""The loop that makes the desired state true: look, plan, act, tell, wait.

Level-triggered: every round starts from what is, so that a lost event costs
time and nothing else. One workload's trouble never stops the others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from minuet.agent import story
from minuet.agent.drivers.port import Driver, InstanceSpec, InstanceState, Layers
from minuet.agent.inventory import Contents, Inventory
from minuet.agent.model import (
    Action,
    ArtifactState,
    Failure,
    Fetch,
    Memory,
    Moment,
    Remove,
    Start,
    Stop,
    Unrouted,
    View,
    WorkloadPlan,
)
from minuet.agent.plan import plan_workload
from minuet.agent.routing import backend_key, table_of
from minuet.gateway.model import RoutingTable
from minuet.infra.telemetry import logger
from minuet.kernel.clock import Clock
from minuet.kernel.conditions import ConditionType
from minuet.kernel.retry import Backoff, GiveUp, Retry
from minuet.protocol.desired import Artifact, Workload

_log = logger(__name__)
_IDLE_SECONDS = 5.0
_KEPT_RELEASES = 4


class Gateway(Protocol):
    """What the loop needs of the gateway."""

    async def apply(self, table: RoutingTable, removed_hosts: frozenset[str] = frozenset()) -> None: ...

    async def active_requests(self, backend: str) -> int | None: ...


Observer = Callable[[Mapping[str, WorkloadPlan], Mapping[str, tuple[InstanceState, ...]], Contents], None]


@dataclass
class _Runtime:
    """What the loop knows beyond the inventory; lost with the process and found again by looking."""

    generations: dict[str, int] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    artifacts: dict[str, ArtifactState] = field(default_factory=dict)
    layers: dict[str, Layers] = field(default_factory=dict)
    fetching: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    stopping: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    unrouted: dict[tuple[str, str], float] = field(default_factory=dict)
    surplus: dict[tuple[str, str], float] = field(default_factory=dict)
    routed: RoutingTable | None = None
    tried: RoutingTable | None = None
    gateway_trouble: Retry | GiveUp | None = None
    gateway_not_before: float = 0.0
    refused: dict[str, Failure] = field(default_factory=dict)
    recent: dict[str, list[str]] = field(default_factory=dict)
    kept: set[str] | None = None
    failures: dict[str, int] = field(default_factory=dict)
    not_before: dict[str, float] = field(default_factory=dict)


class Reconciler:
    """Runs the loop over one driver and one gateway."""

    def __init__(
        self, inventory: Inventory, driver: Driver, gateway: Gateway, clock: Clock, observer: Observer
    ) -> None:
        self._inventory = inventory
        self._driver = driver
        self._gateway = gateway
        self._clock = clock
        self._observer = observer
        self._wake = asyncio.Event()
        self._runtime = _Runtime()

    def poke(self) -> None:
        """Something changed: look now."""
        self._wake.set()

    async def run(self) -> None:
        """Reconciles until cancelled."""
        watcher = asyncio.create_task(self._watch_driver())
        try:
            while True:
                self._wake.clear()
                pause = await self._guarded_round()
                # Not `wait_for`: in Python 3.11 it can swallow a cancellation that meets a wake-up.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
        finally:
            watcher.cancel()
            for task in (*self._runtime.fetching.values(), *self._runtime.stopping.values()):
                task.cancel()

    async def _guarded_round(self) -> float:
        try:
            return await self.round()
        except Retry as retry:
            _log.info("round.retry", reason=retry.reason)
            return retry.after
        except Exception:  # noqa: BLE001 - one defect must not end the loop; it is logged and backed off
            _log.exception("round.failed")
            return 1.0

    async def _watch_driver(self) -> None:
        while True:
            await self._driver.changed()
            self._wake.set()
            await asyncio.sleep(0.005)

    async def round(self) -> float:
        """One look, plan, act; returns the seconds until the next look at the latest."""
        instances = await self._driver.observe()
        contents = self._inventory.contents()
        now = Moment(self._clock.now(), self._clock.monotonic())
        plans = await self._plan(contents, instances, now)
        # Beginning needs no routes, and ending must wait for them; a gateway that is away delays only the latter.
        begun = await self._act(plans, (Fetch, Start))
        if begun and self._runtime.routed is None:
            # Just started: the first table should hold the addresses of what was started a moment ago.
            return 0.0
        changed = await self._route(contents, plans)
        self._tell_unrouted(contents, plans, now)
        ended = await self._act(plans, (Stop, Remove))
        learned = self._remember(contents, plans)
        await self._finish_removals(plans)
        by_key = _by_key(instances)
        self._observer(plans, by_key, contents)
        await self._prune(contents, plans)
        if changed or begun or ended or learned:
            return 0.01
        return self._pause(plans, now)

    def _pause(self, plans: Mapping[str, WorkloadPlan], now: Moment) -> float:
        """Seconds until the clock alone may change something."""
        pauses = [plan.look_again_in for plan in plans.values() if plan.look_again_in is not None]
        if isinstance(trouble := self._runtime.gateway_trouble, Retry):
            pauses.append(trouble.after)
        pauses += [due - now.monotonic for due in self._runtime.not_before.values() if due > now.monotonic]
        return max(0.01, min([_IDLE_SECONDS, *pauses]))

    async def _plan(
        self, contents: Contents, instances: tuple[InstanceState, ...], now: Moment
    ) -> dict[str, WorkloadPlan]:
        by_key = _by_key(instances)
        plans = {}
        for key in sorted({*contents.workloads, *contents.tombstones, *contents.memories, *by_key}):
            view = await self._view(key, contents, by_key.get(key, ()), now)
            plans[key] = plan_workload(view, now)
        self._forget_all_but(set(plans), {instance.id for instance in instances})
        return plans

    def _forget_all_but(self, keys: set[str], instances: set[str]) -> None:
        """What is gone for good leaves nothing behind in memory."""
        runtime = self._runtime
        tables: tuple[dict[str, Any], ...] = (
            runtime.generations, runtime.began, runtime.recent, runtime.failures, runtime.not_before,
        )  # fmt: skip
        for table in tables:
            for key in table.keys() - keys:
                del table[key]
        runtime.unrouted = {place: since for place, since in runtime.unrouted.items() if place[0] in keys}
        runtime.surplus = {place: since for place, since in runtime.surplus.items() if place[1] in instances}

    async def _view(self, key: str, contents: Contents, instances: tuple[InstanceState, ...], now: Moment) -> View:
        desired = contents.workloads.get(key)
        if desired is not None and self._runtime.generations.get(key) != desired.generation:
            self._begin_generation(key, desired)
        routed = self._routed_templates(key, instances)
        if any(instance.ready for instance in instances):
            self._runtime.failures.pop(key, None)
        return View(
            key=key,
            desired=desired,
            tombstoned=key in contents.tombstones,
            memory=contents.memories.get(key, Memory()),
            instances=instances,
            artifacts=self._runtime.artifacts,
            routed=routed,
            unrouted=await self._unrouted(key, instances, routed, now),
            began=self._began(key, desired, instances, now),
        )

    def _begin_generation(self, key: str, desired: Workload) -> None:
        """A new generation is a new chance: for an artifact that was given up, and for what was backed off."""
        runtime = self._runtime
        runtime.generations[key] = desired.generation
        runtime.artifacts = {d: a for d, a in runtime.artifacts.items() if not a.hopeless}
        for table in (runtime.began, runtime.not_before):
            table.pop(key, None)

    def _began(self, key: str, desired: Workload | None, instances: tuple[InstanceState, ...], now: Moment) -> float:
        """Since when this generation has an instance: the time to start in does not run while it is fetched."""
        if desired is not None and any(instance.template == desired.template for instance in instances):
            return self._runtime.began.setdefault(key, now.monotonic)
        return self._runtime.began.get(key, now.monotonic)

    def _routed_templates(self, key: str, instances: tuple[InstanceState, ...]) -> frozenset[str]:
        table = self._runtime.routed
        if table is None or isinstance(self._runtime.gateway_trouble, Retry):
            # Until the gateway confirmed a table, any version that exists may still get requests.
            return frozenset(instance.template for instance in instances)
        return frozenset(route.backend.rpartition("@")[2] for route in table.routes if route.owner == key)

    async def _unrouted(
        self,
        key: str,
        instances: tuple[InstanceState, ...],
        routed: frozenset[str],
        now: Moment,
    ) -> dict[str, Unrouted]:
        """Versions without a route since when, with what is in flight; and instances that are one too many."""
        found: dict[str, Unrouted] = {}
        if self._runtime.routed is None or isinstance(self._runtime.gateway_trouble, Retry):
            return found
        for template in {instance.template for instance in instances}:
            if template in routed:
                self._runtime.unrouted.pop((key, template), None)
                continue
            since = self._runtime.unrouted.setdefault((key, template), now.monotonic)
            found[template] = Unrouted(since, await self._active(key, template))
        for instance in instances:
            if not self._in_table(key, instance):
                since = self._runtime.surplus.setdefault((key, instance.id), now.monotonic)
                found[instance.id] = Unrouted(since, None)
            else:
                self._runtime.surplus.pop((key, instance.id), None)
        return found

    def _in_table(self, key: str, instance: InstanceState) -> bool:
        prefix, location = f"{key}:", instance.location
        table = self._runtime.routed or RoutingTable()
        return location is not None and any(
            location.holds(endpoint)
            for backend in table.backends
            if backend.key.startswith(prefix)
            for endpoint in backend.endpoints
        )

    async def _active(self, key: str, template: str) -> int | None:
        prefix, suffix = f"{key}:", f"@{template}"
        table = self._runtime.routed or RoutingTable()
        names = [b.key for b in table.backends if b.key.startswith(prefix) and b.key.endswith(suffix)]
        counts = [await self._gateway.active_requests(name) for name in names]
        return None if None in counts else sum(count or 0 for count in counts)

    async def _route(self, contents: Contents, plans: Mapping[str, WorkloadPlan]) -> bool:
        """Moves the routes; says whether they changed. A refused table leaves the old one in force."""
        routings = (plan.routing for plan in plans.values() if plan.routing is not None)
        table = table_of(routings, self._runtime.routed)
        if table == self._runtime.routed and not isinstance(self._runtime.gateway_trouble, Retry):
            self._runtime.gateway_trouble = None
            return False
        if table == self._runtime.tried and self._clock.monotonic() < self._runtime.gateway_not_before:
            return False
        kept = {route.host for route in table.routes}
        before = {route.host for route in self._runtime.routed.routes} if self._runtime.routed else set()
        known = {route.host for workload in contents.workloads.values() for route in workload.routes}
        return await self._apply_table(table, frozenset((before | known) - kept) | self._tombstoned_hosts(contents))

    async def _apply_table(self, table: RoutingTable, removed: frozenset[str]) -> bool:
        runtime = self._runtime
        runtime.tried, runtime.gateway_trouble = table, None
        try:
            await self._gateway.apply(table, removed)
        except (Retry, GiveUp) as trouble:
            _log.error("gateway.refused", reason=trouble.reason, message=str(trouble))
            runtime.gateway_trouble = trouble
            pause = trouble.after if isinstance(trouble, Retry) else _IDLE_SECONDS
            runtime.gateway_not_before = self._clock.monotonic() + pause
            return False
        runtime.routed = table
        return True

    def _tell_unrouted(self, contents: Contents, plans: dict[str, WorkloadPlan], now: Moment) -> None:
        """Starting goes on while the gateway does not take routes; it is told of those that wait for it."""
        trouble = self._runtime.gateway_trouble
        if trouble is None:
            return
        for key, plan in plans.items():
            workload = contents.workloads.get(key)
            claims = any(condition.type is ConditionType.ROUTED for condition in plan.conditions)
            if workload is None or not claims or not workload.routes or self._is_routed(workload):
                continue
            refused = isinstance(trouble, GiveUp)
            told = story.unrouted(plan.conditions, workload, refused=refused, message=str(trouble), now=now)
            plans[key] = replace(plan, conditions=told)

    def _tombstoned_hosts(self, contents: Contents) -> frozenset[str]:
        memories = (contents.memories.get(key, Memory()).serving for key in contents.tombstones)
        return frozenset(route.host for workload in memories if workload for route in workload.routes)

    async def _act(self, plans: Mapping[str, WorkloadPlan], kinds: tuple[type[Action], ...]) -> bool:
        now = self._clock.monotonic()
        jobs = [
            self._perform(key, action)
            for key, plan in plans.items()
            if self._runtime.not_before.get(key, 0.0) <= now
            for action in plan.actions
            if isinstance(action, kinds)
        ]
        done = await asyncio.gather(*jobs)
        return any(done)

    async def _perform(self, key: str, action: Action) -> bool:
        """Does one action; says whether the world changed by it."""
        try:
            changed = await self._do(action)
        except (Retry, GiveUp) as trouble:
            self._trouble(key, action, trouble)
            return False
        except Exception:  # noqa: BLE001 - a defect that one workload brings out must not stop the others
            _log.exception("action.broke", workload=key, action=type(action).__name__)
            self._back_off(key)
            return False
        if isinstance(action, Remove) and action.broken:
            self._back_off(key)
        elif not isinstance(action, Start):
            # A start is no success yet: what it started may break again.
            self._runtime.failures.pop(key, None)
        return changed

    async def _do(self, action: Action) -> bool:
        match action:
            case Fetch(artifact):
                self._fetch(artifact)
                return False
            case Start(instance, workload):
                layers = self._runtime.layers[workload.artifact.digest]
                await self._driver.start(InstanceSpec(instance, workload, layers))
            case Stop(instance, grace):
                self._stop(instance, grace)
                return False
            case Remove(instance):
                await self._driver.remove(instance)
        return True

    def _trouble(self, key: str, action: Action, trouble: Retry | GiveUp) -> None:
        self._back_off(key)
        _log.warning("action.failed", workload=key, action=type(action).__name__, reason=str(trouble))
        if isinstance(action, Start) and isinstance(trouble, GiveUp):
            self._runtime.refused[key] = Failure(action.workload.generation, trouble.reason, trouble.message)

    def _back_off(self, key: str) -> None:
        count = self._runtime.failures[key] = self._runtime.failures.get(key, 0) + 1
        self._runtime.not_before[key] = self._clock.monotonic() + Backoff(base=0.2, cap=30.0).delay(count)

    def _stop(self, instance: str, grace: float) -> None:
        """Stops beside the loop: an application that takes all its grace holds up nobody else."""
        running = self._runtime.stopping.get(instance)
        if running is None or running.done():
            self._runtime.stopping[instance] = asyncio.create_task(self._stop_until_gone(instance, grace))

    async def _stop_until_gone(self, instance: str, grace: float) -> None:
        try:
            await self._driver.stop(instance, grace)
        except (Retry, GiveUp) as trouble:
            _log.warning("stop.failed", instance=instance, reason=str(trouble))
            await asyncio.sleep(trouble.after if isinstance(trouble, Retry) else _IDLE_SECONDS)
        except Exception:  # noqa: BLE001 - it is logged, waited for, and tried again
            _log.exception("stop.broke", instance=instance)
            await asyncio.sleep(_IDLE_SECONDS)
        finally:
            self._runtime.stopping.pop(instance, None)
            self._wake.set()

    def _fetch(self, artifact: Artifact) -> None:
        running = self._runtime.fetching.get(artifact.digest)
        if running is not None and not running.done():
            return
        self._runtime.fetching[artifact.digest] = asyncio.create_task(self._fetch_until_there(artifact))

    async def _fetch_until_there(self, artifact: Artifact) -> None:
        attempt = 0
        while True:
            attempt += 1
            try:
                self._runtime.layers[artifact.digest] = await self._driver.ensure_artifact(artifact)
            except Retry as retry:
                state = ArtifactState(reason="ArtifactUnavailable", message=retry.reason)
                pause = max(retry.after, Backoff(base=0.2, cap=15.0).delay(attempt))
            except GiveUp as error:
                state = ArtifactState(reason=error.reason, message=error.message, hopeless=True)
                pause = None
            else:
                state, pause = ArtifactState(present=True, reason="Fetched"), None
            self._runtime.artifacts[artifact.digest] = state
            self._wake.set()
            if pause is None:
                return
            await asyncio.sleep(pause)

    def _remember(self, contents: Contents, plans: Mapping[str, WorkloadPlan]) -> bool:
        """Makes durable what was learned; says whether there was anything."""
        learned = False
        for key, plan in plans.items():
            known = contents.memories.get(key, Memory())
            memory = plan.memory
            if memory.serving is not None and not self._is_routed(memory.serving):
                # A version counts as serving only once its routes are in force.
                memory = replace(memory, serving=known.serving)
            memory = self._with_refusal(key, memory, contents)
            if memory != known and key in contents.workloads:
                self._inventory.remember(key, memory)
                learned = True
        return learned

    def _with_refusal(self, key: str, memory: Memory, contents: Contents) -> Memory:
        """Adds that a new version could not even be started; one that serves is started again and again."""
        refused = self._runtime.refused.pop(key, None)
        desired = contents.workloads.get(key)
        if refused is None or desired is None or refused.generation != desired.generation:
            return memory
        if memory.serving is not None and memory.serving.template == desired.template:
            return memory
        return replace(memory, failure=refused)

    def _is_routed(self, workload: Workload) -> bool:
        if not workload.routes:
            return True
        wanted = {backend_key(workload.key, route.port, workload.template) for route in workload.routes}
        table = self._runtime.routed or RoutingTable()
        return bool(wanted & {route.backend for route in table.routes})

    async def _finish_removals(self, plans: dict[str, WorkloadPlan]) -> None:
        """Lets the driver forget what is gone; a removal is not told before that."""
        for key, plan in list(plans.items()):
            if plan.removed:
                try:
                    await self._driver.forget(key)
                except (Retry, GiveUp) as trouble:
                    _log.warning("forget.failed", workload=key, reason=str(trouble))
                    plans[key] = replace(plan, removed=False, look_again_in=1.0)

    async def _prune(self, contents: Contents, plans: Mapping[str, WorkloadPlan]) -> None:
        """Keeps the artifacts of the running version and of the last three before it."""
        keep: set[str] = set()
        for key, workload in contents.workloads.items():
            recent = self._runtime.recent.setdefault(key, [])
            if workload.artifact.digest not in recent:
                recent.append(workload.artifact.digest)
                del recent[:-_KEPT_RELEASES]
            keep.update(recent)
            serving = plans[key].memory.serving
            if serving is not None:
                keep.add(serving.artifact.digest)
        if keep != self._runtime.kept:
            self._runtime.kept = keep
            with contextlib.suppress(Retry, GiveUp):
                await self._driver.prune_artifacts(frozenset(keep))


def _by_key(instances: Iterable[InstanceState]) -> dict[str, tuple[InstanceState, ...]]:
    found: dict[str, list[InstanceState]] = {}
    for instance in instances:
        found.setdefault(instance.workload_key, []).append(instance)
    return {key: tuple(items) for key, items in found.items()}
