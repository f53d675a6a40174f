"""Releases, deployments and targets as values, and the state machine that tells how a deployment stands.

A deployment never changes after it was made. What is known of it is computed
from the last report of the data plane each time somebody asks, so that no
stored "Ready" can outlive what was seen.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Sequence
from dataclasses import dataclass

from minuet.kernel.conditions import Condition, ConditionType, Status, find
from minuet.protocol.observed import InstancePhase, ObservedWorkload

MAX_REPLICAS = 10
MAX_HISTORY = 100
"""Deployments of a component in an environment that are remembered."""


class Action(enum.StrEnum):
    """What a person asked for."""

    DEPLOY = "deploy"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    REDEPLOY = "redeploy"
    SCALE = "scale"
    SUSPEND = "suspend"
    RESUME = "resume"
    CONFIGURE = "configure"


class State(enum.StrEnum):
    """Whether it is to run."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class DeploymentPhase(enum.StrEnum):
    """All conditions in one word."""

    PENDING = "Pending"
    PROGRESSING = "Progressing"
    READY = "Ready"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    SUPERSEDED = "Superseded"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Release:
    """A build that was deployed at least once. Its name never changes through promotion."""

    id: str
    organization_id: str
    component_id: str
    build_id: str
    build: str
    name: str
    created_by: str
    created_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Deployment:
    """One immutable request to run a release with a configuration in an environment.

    `origin` is the generation that brought in this content: scaling keeps it, a
    rollback takes over the one it goes back to. `closed` are the conditions when
    a newer deployment took its place.
    """

    id: str
    organization_id: str
    project_id: str
    component_id: str
    environment_id: str
    name: str
    generation: int
    origin: int
    release_id: str
    release: str
    build_id: str
    build: str
    config_revision: int
    replicas: int
    state: State
    action: Action
    restart: str
    requested_by: str
    created_at: datetime.datetime
    ready_at: datetime.datetime | None = None
    closed: tuple[Condition, ...] | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a deployment cannot be handed to the data plane."""

    reason: str
    message: str
    since: datetime.datetime


@dataclass(frozen=True, slots=True)
class Address:
    """Where a public endpoint answers, without scheme and port, which are the gateway's."""

    endpoint: str
    host: str
    path: str


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """One version of a secret, sealed for one key of one data plane."""

    name: str
    version: int
    sealing_key: str
    ciphertext: str


@dataclass(frozen=True, slots=True)
class Target:
    """One component in one environment: the deployment that is to run there, and what was last said of it.

    `appended_*` tell what stands in the plane's log: for which deployment, with
    which content, at which place. Without `current_id` nothing is to run, and
    `removed_by` says who asked.
    """

    organization_id: str
    project_id: str
    component_id: str
    environment_id: str
    plane_id: str
    current_id: str | None
    generation: int
    removed_by: str | None
    appended_id: str | None
    appended_hash: str | None
    appended_epoch: int
    appended_revision: int
    addresses: tuple[Address, ...]
    not_in_force: tuple[str, ...]
    trouble: Trouble | None
    observed: ObservedWorkload | None
    observed_at: datetime.datetime | None
    updated_at: datetime.datetime

    @property
    def key(self) -> str:
        """Key of the document on the data plane."""
        return f"{self.component_id}/{self.environment_id}"


BUILD_HOLDER = "delivery"
"""How delivery signs its hold on the builds of its releases."""

TOMBSTONE = "tombstone"
"""What `appended_id` holds once the removal stands in the log."""


@dataclass(frozen=True, slots=True)
class PlaneView:
    """What delivery has to know of a data plane's link."""

    unknown_since: datetime.datetime | None
    acknowledged: tuple[int, int]
    trouble: str | None
    reason: str | None = None
    is_diverged: bool = False


_OBSERVED_TYPES = (
    ConditionType.FETCHED,
    ConditionType.STARTED,
    ConditionType.HEALTHY,
    ConditionType.ROUTED,
    ConditionType.READY,
)

_UNDERWAY = frozenset(
    {"Accepted", "Waiting", "Delivered", "Fetching", "Fetched", "Starting", "Started", "Healthy", "Routed"}
)
"""Reasons of a False condition that still hope."""

_NO_VERDICT = frozenset({ConditionType.IN_FORCE, ConditionType.STARTED})
"""What fails no deployment: a start that does not succeed is tried again, and Ready tells when it is given up."""

_RUNS = frozenset({InstancePhase.STARTING, InstancePhase.RUNNING, InstancePhase.BACKOFF, InstancePhase.STOPPING})


def conditions(deployment: Deployment, target: Target, plane: PlaneView) -> tuple[Condition, ...]:
    """Returns everything that is known of a deployment, and nothing that is not."""
    if deployment.id != target.current_id:
        return _closed(deployment, target)
    generation = deployment.generation
    accepted = Condition(
        ConditionType.ACCEPTED,
        Status.TRUE,
        "Accepted",
        f"{deployment.action} of {deployment.release} was recorded",
        generation,
        deployment.created_at,
    )
    told = [accepted, _delivered(deployment, target, plane), *_observed(deployment, target, plane)]
    if target.appended_id == deployment.id:
        told.append(_in_force(deployment, target))
    return tuple(told)


def _delivered(deployment: Deployment, target: Target, plane: PlaneView) -> Condition:
    kind, generation = ConditionType.DELIVERED, deployment.generation
    place = (target.appended_epoch, target.appended_revision)
    if plane.is_diverged and plane.trouble is not None:
        # Numbers mean nothing across two histories: what was acknowledged may be another document.
        return Condition(kind, Status.FALSE, "PlaneDiverged", plane.trouble, generation, target.updated_at)
    if target.trouble is not None:
        status = Status.UNKNOWN if target.trouble.reason in _UNDERWAY else Status.FALSE
        return Condition(kind, status, target.trouble.reason, target.trouble.message, generation, target.trouble.since)
    if target.appended_id == deployment.id and plane.acknowledged >= place:
        message = "the data plane has it on its disk"
        return Condition(kind, Status.TRUE, "Delivered", message, generation, target.updated_at)
    if plane.unknown_since is not None:
        return _unreachable(kind, generation, plane.unknown_since)
    if target.appended_id == deployment.id and plane.trouble is not None:
        reason = plane.reason or "DesiredStateInvalid"
        return Condition(kind, Status.FALSE, reason, plane.trouble, generation, target.updated_at)
    message = "is on its way to the data plane"
    return Condition(kind, Status.UNKNOWN, "Waiting", message, generation, deployment.created_at)


def _observed(deployment: Deployment, target: Target, plane: PlaneView) -> list[Condition]:
    generation = deployment.generation
    if plane.unknown_since is not None:
        return [_unreachable(kind, generation, plane.unknown_since) for kind in _OBSERVED_TYPES]
    seen = target.observed
    if seen is None or seen.generation != generation:
        return [_waiting(kind, deployment) for kind in _OBSERVED_TYPES]
    reported = {item.type: item.at(generation) for item in seen.conditions}
    told = [reported.get(kind) or _waiting(kind, deployment) for kind in _OBSERVED_TYPES]
    if _serves_another(seen, told[-1]):
        told[-1] = _waiting(ConditionType.READY, deployment)
    return told


def _serves_another(seen: ObservedWorkload, ready: Condition) -> bool:
    """Whether a report calls a version ready while another one answers the requests."""
    return ready.status is Status.TRUE and seen.serving_generation not in (None, seen.generation)


def _waiting(kind: ConditionType, deployment: Deployment) -> Condition:
    message = "the data plane has not reported on it yet"
    return Condition(kind, Status.UNKNOWN, "Waiting", message, deployment.generation, deployment.created_at)


def _unreachable(kind: ConditionType, generation: int, since: datetime.datetime) -> Condition:
    message = "the data plane is not connected; what it runs goes on"
    return Condition(kind, Status.UNKNOWN, "PlaneUnreachable", message, generation, since)


def _in_force(deployment: Deployment, target: Target) -> Condition:
    kind, generation, since = ConditionType.IN_FORCE, deployment.generation, deployment.created_at
    if not target.not_in_force:
        message = "all that is declared is in force"
        return Condition(kind, Status.TRUE, "InForce", message, generation, since)
    message = f"declared and kept, not acted on yet: {'; '.join(target.not_in_force)}"
    return Condition(kind, Status.FALSE, "NotYetInForce", message, generation, since)


def _closed(deployment: Deployment, target: Target) -> tuple[Condition, ...]:
    reason = "Removed" if target.current_id is None and deployment.generation == target.generation else "Superseded"
    message = "it was undeployed" if reason == "Removed" else "a newer deployment took its place"
    ended = Condition(ConditionType.READY, Status.FALSE, reason, message, deployment.generation, target.updated_at)
    kept = [condition for condition in deployment.closed or () if condition.type is not ConditionType.READY]
    return (*kept, ended)


def phase(deployment: Deployment, target: Target, plane: PlaneView, told: Sequence[Condition]) -> DeploymentPhase:
    """Returns all conditions in one word."""
    if deployment.id != target.current_id:
        return DeploymentPhase.SUPERSEDED
    if plane.unknown_since is not None:
        return DeploymentPhase.UNKNOWN
    if deployment.state is State.SUSPENDED and _is_at_rest(deployment, target):
        return DeploymentPhase.SUSPENDED
    ready = find(told, ConditionType.READY)
    if ready is not None and ready.status is Status.TRUE:
        return DeploymentPhase.READY
    if any(is_failure(condition) for condition in told):
        return DeploymentPhase.FAILED
    delivered = find(told, ConditionType.DELIVERED)
    is_there = delivered is not None and delivered.status is Status.TRUE
    return DeploymentPhase.PROGRESSING if is_there else DeploymentPhase.PENDING


def is_failure(condition: Condition) -> bool:
    """Whether a condition says that something went wrong, and not only that it is not done yet."""
    if condition.type in _NO_VERDICT or condition.status is not Status.FALSE:
        return False
    return condition.reason not in _UNDERWAY | {"Suspended", "NotRouted"}


def _is_at_rest(deployment: Deployment, target: Target) -> bool:
    seen = target.observed
    if seen is None or seen.generation != deployment.generation:
        return False
    return not any(instance.phase in _RUNS for instance in seen.instances)


def is_ready(deployment: Deployment, target: Target) -> bool:
    """Whether the last report shows that this very deployment serves."""
    seen = target.observed
    if deployment.id != target.current_id or seen is None or seen.generation != deployment.generation:
        return False
    told = [item.at(seen.generation) for item in seen.conditions]
    ready = find(told, ConditionType.READY)
    return ready is not None and ready.status is Status.TRUE and not _serves_another(seen, ready)


def rollback_target(history: Sequence[Deployment], current: Deployment) -> Deployment | None:
    """Returns the newest good deployment with other content than the current one.

    `history` is newest first. Going back twice goes back further, because what a
    rollback went back to counts as its own origin.
    """
    good = {item.origin for item in history if item.ready_at is not None}
    for item in history:
        if item.origin == item.generation and item.origin in good and item.origin < current.origin:
            return item
    return None
