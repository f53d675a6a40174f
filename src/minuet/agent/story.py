"""The conditions that tell how a workload stands; the plan's words for people. Pure."""

from __future__ import annotations

import datetime

from minuet.agent.drivers.port import InstanceState
from minuet.agent.model import ArtifactState, Failure, Memory, Moment, StartTrouble, View
from minuet.kernel.conditions import Condition, ConditionType, Status
from minuet.kernel.reasons import REASONS
from minuet.protocol.desired import Unreadable, Workload


def meaning(reason: str) -> str:
    """The catalogue's sentence for a reason."""
    return REASONS[reason].meaning


class _Teller:
    """Makes conditions of one generation at one moment."""

    def __init__(self, generation: int, now: Moment) -> None:
        self._generation = generation
        self._now = now

    def say(
        self,
        kind: ConditionType,
        holds: bool | None,
        reason: str,
        message: str = "",
        log_tail: tuple[str, ...] = (),
    ) -> Condition:
        status = {True: Status.TRUE, False: Status.FALSE, None: Status.UNKNOWN}[holds]
        text = message or meaning(reason)
        return Condition(kind, status, reason, text, self._generation, self._now.wall, log_tail)


def steady(view: View, desired: Workload, running: list[InstanceState], now: Moment) -> tuple[Condition, ...]:
    """The version that serves: healthy and routed, or what is wrong with it."""
    teller = _Teller(desired.generation, now)
    if desired.replicas == 0:
        stopped = not running
        reason = "Suspended" if stopped else "Waiting"
        return (teller.say(ConditionType.READY, False, reason),)
    ready = sum(instance.ready for instance in running)
    routed = not desired.routes or desired.template in view.routed
    healthy = ready >= desired.replicas
    sick = next((instance for instance in running if not instance.ready), None)
    trouble = view.troubles.get(desired.template)
    fell = any(i.restarts or i.reason == "Unhealthy" for i in running)
    coming = now.monotonic - view.began < desired.start_timeout and not fell
    return (
        teller.say(ConditionType.FETCHED, True, "Fetched"),
        _started(teller, len(running) >= desired.replicas, "Starting", trouble),
        _health(teller, healthy, ready, desired, sick, on_its_way=coming),
        _route(teller, desired, routed),
        _readiness(teller, ready > 0 and routed, None if coming else sick, None if running else trouble),
    )


def rollout(
    view: View, desired: Workload, candidates: list[InstanceState], memory: Memory, now: Moment
) -> tuple[Condition, ...]:
    """A version on its way, or given up."""
    teller = _Teller(desired.generation, now)
    artifact = view.artifacts.get(desired.artifact.digest, ArtifactState())
    ready = sum(instance.ready for instance in candidates)
    started = len(candidates) >= desired.replicas
    trouble = view.troubles.get(desired.template)
    sick = next((instance for instance in candidates if not instance.ready), None)
    told = [
        teller.say(
            ConditionType.FETCHED,
            artifact.present,
            "Fetched" if artifact.present else artifact.reason,
            artifact.message,
        ),
        _started(teller, started, "Waiting", trouble),
    ]
    if memory.failure is not None:
        return (*told, *_given_up(teller, memory.failure, memory.serving))
    return (
        *told,
        _health(teller, False, ready, desired, sick, on_its_way=True),
        teller.say(ConditionType.ROUTED, False, "Waiting"),
        teller.say(ConditionType.READY, False, "Starting" if candidates or trouble else "Waiting"),
    )


def removal(view: View, *, gone: bool, now: Moment) -> tuple[Condition, ...]:
    """A workload that is being deleted."""
    generation = view.desired.generation if view.desired else 0
    teller = _Teller(generation, now)
    return (teller.say(ConditionType.READY, False, "Removed" if gone else "Waiting"),)


def unrouted(
    conditions: tuple[Condition, ...], workload: Workload, *, refused: bool, message: str, now: Moment
) -> tuple[Condition, ...]:
    """The same story when the gateway did not take the routes: refused by it, or not known while it is silent."""
    teller = _Teller(workload.generation, now)
    holds, reason = (False, "GatewayRejected") if refused else (None, "Waiting")
    hidden = (ConditionType.ROUTED, ConditionType.READY)
    kept = tuple(condition for condition in conditions if condition.type not in hidden)
    return (*kept, *(teller.say(kind, holds, reason, message) for kind in hidden))


def unreadable(document: Unreadable, wall: datetime.datetime) -> Condition:
    """A document of a newer control plane; what served before goes on."""
    text = f"{meaning('DesiredStateInvalid')} {document.problem}"
    return Condition(ConditionType.READY, Status.FALSE, "DesiredStateInvalid", text, document.generation, wall)


def _given_up(teller: _Teller, failure: Failure, serving: Workload | None) -> tuple[Condition, ...]:
    after = f"; release {serving.release} keeps serving" if serving and serving.replicas else ""
    message = f"{failure.message.rstrip('.')}{after}."
    return (
        teller.say(ConditionType.HEALTHY, False, failure.reason, message, failure.log_tail),
        teller.say(ConditionType.READY, False, failure.reason, message, failure.log_tail),
    )


def _started(teller: _Teller, holds: bool, meanwhile: str, trouble: StartTrouble | None) -> Condition:
    """Whether there are enough instances; why not, while another attempt is still to come."""
    if holds or trouble is None:
        return teller.say(ConditionType.STARTED, holds, "Started" if holds else meanwhile)
    return teller.say(ConditionType.STARTED, False, trouble.reason, trouble.message)


def _health(
    teller: _Teller,
    healthy: bool,
    ready: int,
    desired: Workload,
    sick: InstanceState | None,
    *,
    on_its_way: bool = False,
) -> Condition:
    if healthy:
        return teller.say(ConditionType.HEALTHY, True, "Healthy")
    # While a version comes up, what is not well yet is no verdict; the plan gives one when it gives up.
    reason = "Starting" if on_its_way else (sick.reason if sick else None) or "Unhealthy"
    detail = f" {sick.message}" if sick and sick.message else ""
    message = f"{ready} of {desired.replicas} instances passed the health check.{detail}"
    return teller.say(ConditionType.HEALTHY, False, reason, message, sick.log_tail if sick else ())


def _route(teller: _Teller, desired: Workload, routed: bool) -> Condition:
    if not desired.routes:
        return teller.say(ConditionType.ROUTED, True, "NotRouted")
    return teller.say(ConditionType.ROUTED, routed, "Routed" if routed else "Waiting")


def _readiness(teller: _Teller, serves: bool, sick: InstanceState | None, trouble: StartTrouble | None) -> Condition:
    if serves:
        return teller.say(ConditionType.READY, True, "Ready")
    if trouble is not None:
        return teller.say(ConditionType.READY, False, trouble.reason, trouble.message)
    if sick is not None and (sick.reason or sick.restarts):
        reason = sick.reason or "Unhealthy"
        return teller.say(ConditionType.READY, False, reason, sick.message or "", sick.log_tail)
    return teller.say(ConditionType.READY, False, "Waiting")
