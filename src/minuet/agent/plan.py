"""What to do next for one workload. Pure: the same view gives the same plan.

New instances start beside the old ones; routes move when enough of the new are
ready; the old drain and stop last. A version that never becomes ready is given
up and the one that serves stays. Absence of a document changes nothing: only a
tombstone removes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from minuet.agent import story
from minuet.agent.drivers.port import InstanceState, Location
from minuet.agent.model import (
    Action,
    ArtifactState,
    Failure,
    Fetch,
    Memory,
    Moment,
    Remove,
    Routing,
    Start,
    Stop,
    View,
    WorkloadPlan,
)
from minuet.protocol.desired import Workload
from minuet.protocol.observed import InstancePhase

EXITS_BEFORE_GIVING_UP = 3
SCALE_DOWN_SECONDS = 3.0
"""How long an instance that is one too many gets no requests before it is stopped; what it has in flight cannot be counted."""

QUIET_SECONDS = 0.3
"""How long a version is without a route before nothing in flight means that nothing comes any more.

Envoy's workers take a new table one after the other; measured, requests that the
slowest of them still sends by the old one are over after 0.3 s.
"""

WRONG_ADDRESS_SECONDS = 15.0
"""An application that has listened somewhere else for so long will not come to the right address by waiting."""

_WRONG_ADDRESS = ("ListensOnLoopback", "ListensOnOtherPort")
_GONE = (InstancePhase.STOPPED,)
_REFUSED = ("ProbeFailed", "Unhealthy")
_LOOK_SECONDS = 0.1


def plan_workload(view: View, now: Moment) -> WorkloadPlan:
    """Decides for one workload."""
    if view.tombstoned:
        return _plan_removal(view, now)
    if view.desired is None:
        return _plan_orphan(view, now)
    desired = view.desired
    memory = _adopted(view.memory, desired)
    serving = memory.serving
    if serving is None or serving.template != desired.template:
        return _plan_rollout(view, desired, memory, now)
    return _plan_steady(view, desired, memory, now)


def live(view: View, template: str) -> list[InstanceState]:
    """The instances of a version that exist, lowest ordinal first."""
    found = [i for i in view.instances if i.template == template and i.phase not in _GONE]
    return sorted(found, key=lambda instance: instance.id)


def _adopted(memory: Memory, desired: Workload) -> Memory:
    """A newer document with the same content serves at once: only its bookkeeping, scale or routes changed."""
    serving = memory.serving
    failure = memory.failure if memory.failure and memory.failure.generation == desired.generation else None
    if serving is not None and serving.template == desired.template:
        return Memory(desired, None)
    return Memory(serving, failure)


def _plan_steady(view: View, desired: Workload, memory: Memory, now: Moment) -> WorkloadPlan:
    """The version that should serve does: keep its instances, drain everything else."""
    count = _count_instances(view, desired, now)
    drained = _drain_others(view, {desired.template}, desired, now)
    running = [i for i in live(view, desired.template) if i not in count.surplus]
    routing = _routing(desired, running, drained.standby)
    return WorkloadPlan(
        actions=(*count.actions, *drained.actions, *_removals(view), *_replacements(view, desired)),
        routing=routing,
        memory=memory,
        conditions=story.steady(view, desired, running, now),
        look_again_in=_LOOK_SECONDS if count.surplus or drained.waiting else None,
    )


def _plan_rollout(view: View, desired: Workload, memory: Memory, now: Moment) -> WorkloadPlan:
    """Another version serves, or none does yet: bring the new one up beside it, or give it up."""
    serving = memory.serving
    candidates = live(view, desired.template)
    if memory.failure is None:
        memory = replace(memory, failure=_judge(view, desired, candidates, now))
    if memory.failure is None and _enough_ready(desired, candidates):
        return _plan_steady(view, desired, Memory(desired, None), now)
    kept = {desired.template} if memory.failure is None else set()
    actions: list[Action] = []
    if memory.failure is None:
        actions += _count_instances(view, desired, now).actions
    running: list[InstanceState] = []
    surplus: tuple[InstanceState, ...] = ()
    if serving is not None:
        kept.add(serving.template)
        count = _count_instances(view, serving, now)
        actions += count.actions
        surplus = count.surplus
        running = [i for i in live(view, serving.template) if i not in surplus]
    drained = _drain_others(view, kept, desired, now)
    return WorkloadPlan(
        actions=(*actions, *drained.actions, *_removals(view)),
        routing=_routing(serving, running, drained.standby) if serving else _routing(desired, [], drained.standby),
        memory=memory,
        conditions=story.rollout(view, desired, candidates, memory, now),
        look_again_in=_LOOK_SECONDS if drained.waiting or surplus else _next_judgement(view, desired, now),
    )


def _next_judgement(view: View, desired: Workload, now: Moment) -> float | None:
    """Seconds until the clock may decide about a candidate; nothing when it has."""
    waited = now.monotonic - view.began
    ahead = [limit - waited for limit in (WRONG_ADDRESS_SECONDS, desired.start_timeout) if limit > waited]
    return min(ahead) + 0.01 if ahead else None


def _plan_orphan(view: View, now: Moment) -> WorkloadPlan:
    """No document and no tombstone, as after damage: what last served goes on, anything else is left alone."""
    serving = view.memory.serving
    if serving is None:
        return WorkloadPlan(memory=view.memory)
    return replace(_plan_steady(view, serving, view.memory, now), conditions=())


def _plan_removal(view: View, now: Moment) -> WorkloadPlan:
    """A tombstone: routes away first, then drain, stop, forget."""
    grace = view.memory.serving or view.desired
    drained = _drain_others(view, set(), grace, now)
    gone = not view.instances and not view.routed
    return WorkloadPlan(
        actions=(*drained.actions, *_removals(view)),
        memory=view.memory,
        conditions=story.removal(view, gone=gone, now=now),
        removed=gone,
        look_again_in=None if gone else _LOOK_SECONDS,
    )


@dataclass(frozen=True, slots=True)
class _Count:
    actions: tuple[Action, ...]
    surplus: tuple[InstanceState, ...]


def _count_instances(view: View, workload: Workload, now: Moment) -> _Count:
    """Starts what is missing of a version and stops what is too much."""
    # Those that serve come first, so that scaling down never keeps a sick one in the place of a healthy one.
    present = sorted(live(view, workload.template), key=lambda instance: (not instance.ready, instance.id))
    surplus = tuple(present[workload.replicas :])
    if len(present) < workload.replicas:
        artifact = view.artifacts.get(workload.artifact.digest, ArtifactState())
        if not artifact.present:
            return _Count((Fetch(workload.artifact),), ())
        taken = {instance.id for instance in view.instances}
        fresh = [name for name in _names(workload) if name not in taken]
        return _Count(tuple(Start(name, workload) for name in fresh[: workload.replicas - len(present)]), ())
    unrouted = view.unrouted
    due = [i for i in surplus if i.id in unrouted and now.monotonic - unrouted[i.id].since >= SCALE_DOWN_SECONDS]
    return _Count(tuple(Stop(instance.id, workload.stop_grace) for instance in due), surplus)


def _names(workload: Workload) -> list[str]:
    """Instance names by ordinal; twice as many as needed, since stopped ones still hold theirs."""
    owner = hashlib.sha256(workload.key.encode()).hexdigest()[:8]
    return [f"{owner}-{workload.template[:8]}-{number}" for number in range(workload.replicas * 2 + 4)]


def _enough_ready(desired: Workload, candidates: list[InstanceState]) -> bool:
    return sum(instance.ready for instance in candidates) >= desired.replicas


def _judge(view: View, desired: Workload, candidates: list[InstanceState], now: Moment) -> Failure | None:
    """Says whether a new version must be given up, and why."""
    artifact = view.artifacts.get(desired.artifact.digest)
    if artifact is not None and artifact.hopeless:
        return Failure(desired.generation, artifact.reason, artifact.message)
    # One that is being stopped belongs to an earlier attempt with the same content.
    candidates = [instance for instance in candidates if instance.phase is not InstancePhase.STOPPING]
    for instance in candidates:
        gave_up = instance.phase is InstancePhase.FAILED
        if gave_up or (instance.restarts >= EXITS_BEFORE_GIVING_UP and not instance.ready):
            return _failure(desired, instance, "ExitedAtOnce")
    trouble = view.troubles.get(desired.template)
    # Judged by an attempt that came too late, so that time spent on fetching again condemns nothing by itself.
    if trouble is not None and trouble.last - trouble.since >= desired.start_timeout:
        return Failure(desired.generation, trouble.reason, trouble.message)
    waited = now.monotonic - view.began
    slow = next((instance for instance in candidates if not instance.ready), None)
    wrong = slow is not None and slow.reason in _WRONG_ADDRESS and waited >= WRONG_ADDRESS_SECONDS
    if slow is not None and (wrong or waited >= desired.start_timeout):
        return _failure(desired, slow, "NotListening")
    return None


def _failure(desired: Workload, instance: InstanceState, default: str) -> Failure:
    # A loop of crashes is told of what once worked; this version never did.
    reason = default if instance.reason in (None, "CrashLoop") else instance.reason
    return Failure(desired.generation, reason, instance.message or story.meaning(reason), instance.log_tail)


@dataclass(frozen=True, slots=True)
class _Drained:
    actions: tuple[Action, ...]
    standby: dict[str, tuple[Location, ...]]
    waiting: bool


def _drain_others(view: View, kept: set[str], timing: Workload | None, now: Moment) -> _Drained:
    """Stops versions that are not kept, once no route names them and nothing is in flight."""
    actions: list[Action] = []
    standby: dict[str, tuple[Location, ...]] = {}
    waiting = False
    limit = timing.drain_timeout if timing else 30.0
    grace = timing.stop_grace if timing else 10.0
    for template in sorted({i.template for i in view.instances if i.phase not in _GONE} - kept):
        instances = live(view, template)
        if template in view.routed or not _drained(view, template, limit, now):
            standby[template] = _locations(instances)
            waiting = True
            continue
        actions += [Stop(i.id, grace) for i in instances if i.phase is not InstancePhase.STOPPING]
    return _Drained(tuple(actions), standby, waiting)


def _drained(view: View, template: str, limit: float, now: Moment) -> bool:
    unrouted = view.unrouted.get(template)
    if unrouted is None:
        # It never had a route in this agent's life: nothing can be in flight that we sent.
        return template not in view.routed
    waited = now.monotonic - unrouted.since
    return (unrouted.active == 0 and waited >= QUIET_SECONDS) or waited >= limit


def _removals(view: View) -> tuple[Action, ...]:
    return tuple(Remove(instance.id) for instance in view.instances if instance.phase in _GONE)


def _replacements(view: View, desired: Workload) -> tuple[Action, ...]:
    """A version that once served is not given up: what the host broke is started anew."""
    failed = [i for i in live(view, desired.template) if i.phase is InstancePhase.FAILED]
    return tuple(Remove(instance.id, broken=True) for instance in failed)


def _routing(workload: Workload, running: list[InstanceState], standby: dict[str, tuple[Location, ...]]) -> Routing:
    """Ready instances get requests; when none is, all get them that no declared health check speaks against.

    One that restarts keeps its address, and an agent that has just started has not seen any of them yet.
    """
    refusing = _REFUSED if workload.health else ()
    chosen = _locations([i for i in running if i.ready]) or _locations([i for i in running if i.reason not in refusing])
    return Routing(workload, chosen if workload.replicas else (), standby)


def _locations(instances: list[InstanceState]) -> tuple[Location, ...]:
    return tuple(instance.location for instance in instances if instance.location)
