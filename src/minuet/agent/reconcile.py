"""The loop that makes the desired state true: look, plan, act, tell, wait.

Level-triggered: every round starts from what is, so that a lost event costs
time and nothing else. One workload's trouble never stops the others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from minuet.agent.artifacts import Artifacts, kept
from minuet.agent.attempts import Attempts, reason_of
from minuet.agent.drivers.port import Driver, InstanceSpec, InstanceState
from minuet.agent.inventory import Contents, Inventory
from minuet.agent.model import (
    Action,
    Failure,
    Fetch,
    Memory,
    Moment,
    Remove,
    Start,
    Stop,
    View,
    WorkloadPlan,
)
from minuet.agent.plan import live, plan_workload
from minuet.agent.traffic import Gateway, Traffic
from minuet.infra.telemetry import logger
from minuet.kernel.clock import Clock
from minuet.kernel.retry import GiveUp, Retry
from minuet.protocol.desired import Workload

_log = logger(__name__)
_IDLE_SECONDS = 5.0


Observer = Callable[[Mapping[str, WorkloadPlan], Mapping[str, tuple[InstanceState, ...]], Contents], None]


@dataclass
class _Runtime:
    """What the loop knows beyond the inventory; lost with the process and found again by looking."""

    generations: dict[str, int] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    stopping: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    refused: dict[str, Failure] = field(default_factory=dict)


class Reconciler:
    """Runs the loop over one driver and one gateway."""

    def __init__(
        self, inventory: Inventory, driver: Driver, gateway: Gateway, clock: Clock, observer: Observer
    ) -> None:
        self._inventory = inventory
        self._driver = driver
        self._clock = clock
        self._observer = observer
        self._wake = asyncio.Event()
        self._runtime = _Runtime()
        self._artifacts = Artifacts(driver, clock, self._wake.set)
        self._attempts = Attempts()
        self._traffic = Traffic(gateway, clock, self._wake.set)

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
            self._artifacts.close()
            self._traffic.close()
            for task in self._runtime.stopping.values():
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
        if begun and not self._traffic.is_known:
            # Just started: the first table should hold the addresses of what was started a moment ago.
            return 0.0
        changed = await self._traffic.route(contents, plans)
        self._traffic.tell(contents, plans, now)
        ended = await self._act(plans, (Stop, Remove))
        learned = self._remember(contents, plans)
        await self._finish_removals(plans)
        by_key = _by_key(instances)
        self._observer(plans, by_key, contents)
        await self._prune(contents)
        if changed or begun or ended or learned:
            return 0.01
        return self._pause(plans, now)

    def _pause(self, plans: Mapping[str, WorkloadPlan], now: Moment) -> float:
        """Seconds until the clock alone may change something."""
        pauses = [plan.look_again_in for plan in plans.values() if plan.look_again_in is not None]
        if (pause := self._traffic.pause) is not None:
            pauses.append(pause)
        return max(0.01, min([_IDLE_SECONDS, *pauses, *self._attempts.pauses(now.monotonic)]))

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
        for table in (self._runtime.generations, self._runtime.began):
            for key in table.keys() - keys:
                del table[key]
        self._attempts.forget_all_but(keys)
        self._traffic.forget_all_but(keys, instances)

    async def _view(self, key: str, contents: Contents, instances: tuple[InstanceState, ...], now: Moment) -> View:
        desired = contents.workloads.get(key)
        if desired is not None and self._runtime.generations.get(key) != desired.generation:
            self._begin_generation(key, desired)
        routed = self._traffic.templates(key, instances)
        if any(instance.ready for instance in instances):
            self._attempts.worked(key)
        memory = contents.memories.get(key, Memory())
        view = View(
            key=key,
            desired=desired,
            tombstoned=key in contents.tombstones,
            memory=memory,
            instances=instances,
            artifacts=self._artifacts.states,
            routed=routed,
            unrouted=await self._traffic.unrouted(key, instances, routed, now),
            began=self._began(key, desired, instances, now),
        )
        wanted = [workload for workload in (desired, memory.serving) if workload is not None]
        self._attempts.started(key, [w.template for w in wanted if len(live(view, w.template)) >= w.replicas])
        return replace(view, troubles=self._attempts.troubles(key))

    def _begin_generation(self, key: str, desired: Workload) -> None:
        """A new generation is a new chance: for an artifact that was given up, and for what was backed off."""
        self._runtime.generations[key] = desired.generation
        self._runtime.began.pop(key, None)
        self._artifacts.forgive(desired.artifact.digest)
        self._attempts.begin(key)

    def _began(self, key: str, desired: Workload | None, instances: tuple[InstanceState, ...], now: Moment) -> float:
        """Since when this generation has an instance: the time to start in does not run while it is fetched."""
        if desired is not None and any(instance.template == desired.template for instance in instances):
            return self._runtime.began.setdefault(key, now.monotonic)
        return self._runtime.began.get(key, now.monotonic)

    async def _act(self, plans: Mapping[str, WorkloadPlan], kinds: tuple[type[Action], ...]) -> bool:
        now = self._clock.monotonic()
        jobs = [
            self._perform(key, action)
            for key, plan in plans.items()
            for action in plan.actions
            if isinstance(action, kinds) and (isinstance(action, Fetch) or self._attempts.is_due(key, now))
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
            self._trouble(key, action, Retry("it met a defect of the agent, whose log says more", after=1.0))
            return False
        if isinstance(action, Remove) and action.broken:
            self._attempts.back_off(key, self._clock.monotonic())
        elif isinstance(action, Stop | Remove):
            # A start is no success yet: what it started may break again. Asking for an artifact is none either.
            self._attempts.worked(key)
        return changed

    async def _do(self, action: Action) -> bool:
        match action:
            case Fetch(artifact):
                self._artifacts.fetch(artifact)
                return False
            case Start(instance, workload):
                layers = self._artifacts.layers(workload.artifact.digest)
                if layers is None:
                    return False
                await self._driver.start(InstanceSpec(instance, workload, layers))
            case Stop(instance, grace):
                self._stop(instance, grace)
                return False
            case Remove(instance):
                await self._driver.remove(instance)
        return True

    def _trouble(self, key: str, action: Action, trouble: Retry | GiveUp) -> None:
        _log.warning("action.failed", workload=key, action=type(action).__name__, reason=str(trouble))
        now = self._clock.monotonic()
        if not isinstance(action, Start):
            self._attempts.back_off(key, now, trouble.after if isinstance(trouble, Retry) else 0.0)
            return
        self._attempts.start_failed(action.workload, trouble, now)
        self._artifacts.doubt(action.workload.artifact.digest)
        if isinstance(trouble, GiveUp):
            self._runtime.refused[key] = Failure(action.workload.generation, reason_of(trouble), trouble.message)

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

    def _remember(self, contents: Contents, plans: dict[str, WorkloadPlan]) -> bool:
        """Makes durable what was learned, which is also all that is told; says whether there was anything."""
        learned = False
        for key, plan in list(plans.items()):
            known = contents.memories.get(key, Memory())
            memory = plan.memory
            if memory.serving is not None and not self._traffic.is_routed(memory.serving):
                # A version counts as serving only once its routes are in force.
                memory = replace(memory, serving=known.serving)
            memory = self._with_refusal(key, memory, contents)
            plans[key] = replace(plan, memory=memory)
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

    async def _finish_removals(self, plans: dict[str, WorkloadPlan]) -> None:
        """Lets the driver forget what is gone; a removal is not told before that."""
        for key, plan in list(plans.items()):
            if plan.removed:
                try:
                    await self._driver.forget(key)
                except (Retry, GiveUp) as trouble:
                    _log.warning("forget.failed", workload=key, reason=str(trouble))
                    plans[key] = replace(plan, removed=False, look_again_in=1.0)

    async def _prune(self, contents: Contents) -> None:
        """Lets go of artifacts that nothing needs; an inventory that knows nothing, as after damage, is no reason to."""
        if self._inventory.position.epoch > 0:
            await self._artifacts.keep(kept(contents))


def _by_key(instances: Iterable[InstanceState]) -> dict[str, tuple[InstanceState, ...]]:
    found: dict[str, list[InstanceState]] = {}
    for instance in instances:
        found.setdefault(instance.workload_key, []).append(instance)
    return {key: tuple(items) for key, items in found.items()}
