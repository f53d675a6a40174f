"""What answers show of releases, deployments and environments. Pure: rows in, bodies out."""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence

from pydantic import Field

from minuet.control.catalog.api import EnvironmentSummary
from minuet.control.configuration.api import HealthBody, health_body
from minuet.control.delivery import model
from minuet.control.delivery.model import (
    Action,
    Address,
    Deployment,
    DeploymentPhase,
    PlaneView,
    Release,
    State,
    Target,
)
from minuet.control.planes.api import ConditionBody
from minuet.kernel import reasons
from minuet.kernel.conditions import Condition
from minuet.kernel.health import HealthCheck
from minuet.protocol.observed import InstancePhase, ObservedInstance
from minuet.web.models import Model, Timestamp


class ReleaseBody(Model):
    """A build that was deployed at least once."""

    id: str
    build: str
    created_by: str
    created_at: Timestamp


class StoryConditionBody(ConditionBody):
    """A condition with what to do next and, when the application failed, its last lines."""

    next_step: str | None = None
    log_tail: list[str] = Field(default_factory=list)


class DeploymentBody(Model):
    """One immutable request, and everything that is known of it."""

    id: str
    generation: int
    component: str
    project: str
    environment: str
    release: str
    build: str
    config_revision: int
    replicas: int
    state: State
    action: Action
    requested_by: str
    created_at: Timestamp
    ready_at: Timestamp | None = None
    phase: DeploymentPhase
    conditions: list[StoryConditionBody]


class AddressBody(Model):
    """Where an endpoint answers."""

    endpoint: str
    url: str


class ServingBody(Model):
    """Which version answers requests, as last seen."""

    deployment: str
    release: str


class InstanceBody(Model):
    """One instance, as its data plane last saw it."""

    id: str
    generation: int
    phase: InstancePhase
    ready: bool
    restarts: int
    started_at: Timestamp | None = None
    exit_code: int | None = None
    reason: str | None = None
    message: str | None = None
    isolation: str = ""


class ComponentEnvironmentBody(Model):
    """A component in an environment; `unknownSince` is there while its data plane's link is down.

    `health` is the health check that the current deployment declares, if it declares one.
    """

    environment: str
    phase: DeploymentPhase | None = None
    url: str | None = None
    urls: list[AddressBody]
    current: DeploymentBody | None = None
    serving: ServingBody | None = None
    conditions: list[StoryConditionBody]
    instances: list[InstanceBody]
    health: HealthBody | None = None
    removing: bool = False
    unknown_since: Timestamp | None = None


class Names(Model):
    """The names that belong to a target."""

    project: str
    component: str
    environment: str


def release_body(release: Release) -> ReleaseBody:
    """Returns the form of a release that answers show."""
    return ReleaseBody(
        id=release.name, build=release.build, created_by=release.created_by, created_at=release.created_at
    )


def deployment_body(deployment: Deployment, target: Target, plane: PlaneView, names: Names) -> DeploymentBody:
    """Returns the form of a deployment that answers show."""
    told = model.conditions(deployment, target, plane)
    return DeploymentBody(
        id=deployment.name,
        generation=deployment.generation,
        component=names.component,
        project=names.project,
        environment=names.environment,
        release=deployment.release,
        build=deployment.build,
        config_revision=deployment.config_revision,
        replicas=deployment.replicas,
        state=deployment.state,
        action=deployment.action,
        requested_by=deployment.requested_by,
        created_at=deployment.created_at,
        ready_at=deployment.ready_at,
        phase=model.phase(deployment, target, plane, told),
        conditions=[_condition(condition) for condition in told],
    )


def environment_body(
    target: Target | None,
    current: Deployment | None,
    serving: Deployment | None,
    plane: PlaneView,
    *,
    names: Names,
    gateway_url: str,
    health: HealthCheck | None = None,
) -> ComponentEnvironmentBody:
    """Returns the form of a component in an environment that answers show."""
    shown = None
    if target is not None and current is not None:
        shown = deployment_body(current, target, plane, names)
    urls = [] if target is None or current is None else addresses(target.addresses, gateway_url)
    seen = None if target is None else target.observed
    return ComponentEnvironmentBody(
        environment=names.environment,
        phase=None if shown is None else shown.phase,
        url=urls[0].url if urls else None,
        urls=urls,
        current=shown,
        serving=None if serving is None else ServingBody(deployment=serving.name, release=serving.release),
        conditions=[] if shown is None else shown.conditions,
        instances=[] if seen is None else [_instance(instance) for instance in seen.instances],
        health=health_body(health),
        removing=target is not None and target.current_id is None and target.removed_by is not None,
        unknown_since=plane.unknown_since,
    )


def summary(
    target: Target, current: Deployment, plane: PlaneView, environment: str, gateway_url: str
) -> EnvironmentSummary:
    """Returns a component in an environment in a few words."""
    told = model.conditions(current, target, plane)
    urls = addresses(target.addresses, gateway_url)
    return EnvironmentSummary(
        environment=environment,
        phase=model.phase(current, target, plane, told).value,
        url=urls[0].url if urls else None,
        release=current.release,
        deployment=current.name,
        unknown_since=plane.unknown_since,
    )


def addresses(found: Sequence[Address], gateway_url: str) -> list[AddressBody]:
    """Returns URLs: scheme and port are those of the plane's gateway, host and path those of the route."""
    gateway = urllib.parse.urlsplit(gateway_url or "http://localhost")
    port = f":{gateway.port}" if gateway.port else ""
    return [
        AddressBody(endpoint=item.endpoint, url=f"{gateway.scheme}://{item.host}{port}{item.path}") for item in found
    ]


def _condition(condition: Condition) -> StoryConditionBody:
    return StoryConditionBody(
        **ConditionBody.of(condition).model_dump(),
        next_step=reasons.advice(condition.reason),
        log_tail=list(condition.log_tail),
    )


def _instance(instance: ObservedInstance) -> InstanceBody:
    return InstanceBody(
        id=instance.id,
        generation=instance.generation,
        phase=instance.phase,
        ready=instance.ready,
        restarts=instance.restarts,
        started_at=instance.started_at,
        exit_code=instance.exit_code,
        reason=instance.reason,
        message=instance.message,
        isolation=instance.isolation,
    )
