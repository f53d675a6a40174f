"""Reads that join a target with its deployments, its plane and its names, for routes and streams."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from minuet.control.catalog.api import EnvironmentSummary
from minuet.control.catalog.model import Component
from minuet.control.configuration import service as configuration
from minuet.control.delivery import service, store, views
from minuet.control.delivery.model import Deployment, Target
from minuet.control.delivery.views import ComponentEnvironmentBody, DeploymentBody, Names
from minuet.control.planes import store as planes
from minuet.control.planes.model import Environment
from minuet.infra.database import Transaction
from minuet.kernel.clock import Clock
from minuet.kernel.errors import NotFound


async def environment(
    tx: Transaction, component: Component, where: Environment, now: datetime.datetime
) -> ComponentEnvironmentBody:
    """Returns how a component stands in an environment, also where it was never deployed."""
    target = await store.target(tx, component.organization_id, component.id, where.id)
    current = serving = health = None
    if target is not None and target.current_id is not None:
        current = await store.deployment_by_id(tx, target.organization_id, target.current_id)
    if current is not None:
        health = (await configuration.at_revision(tx, component, where.id, current.config_revision)).health
    if target is not None and target.observed is not None and target.observed.serving_generation is not None:
        serving = await store.deployment_by_generation(tx, target, target.observed.serving_generation)
    plane, view = await service.view_of(tx, where.plane_id if target is None else target.plane_id, now)
    names = Names(project=component.project, component=component.name, environment=where.name)
    return views.environment_body(
        target, current, serving, view, names=names, gateway_url=plane.gateway_url, health=health
    )


async def deployment_bodies(
    tx: Transaction, component: Component, found: Sequence[Deployment], now: datetime.datetime
) -> list[DeploymentBody]:
    """Returns deployments of a component as answers show them."""
    bodies = []
    targets: dict[str, tuple[Target, Environment]] = {}
    for deployment in found:
        if deployment.environment_id not in targets:
            targets[deployment.environment_id] = await _target(tx, component, deployment)
        target, where = targets[deployment.environment_id]
        _, view = await service.view_of(tx, target.plane_id, now)
        names = Names(project=component.project, component=component.name, environment=where.name)
        bodies.append(views.deployment_body(deployment, target, view, names))
    return bodies


async def _target(tx: Transaction, component: Component, deployment: Deployment) -> tuple[Target, Environment]:
    organization_id = component.organization_id
    target = await store.target(tx, organization_id, component.id, deployment.environment_id)
    where = await planes.environment_by_id(tx, organization_id, deployment.environment_id)
    if target is None or where is None:
        raise NotFound("the environment of the deployment is gone", code="EnvironmentNotFound")
    return target, where


class Summaries:
    """Tells catalog how components stand in their environments."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def __call__(
        self, tx: Transaction, organization_id: str, component_ids: Sequence[str]
    ) -> dict[str, list[EnvironmentSummary]]:
        """Returns the summaries by component, in the order of the environments' making."""
        targets = await store.targets_of(tx, organization_id, component_ids)
        ids = [target.current_id for target in targets if target.current_id is not None]
        current = await store.deployments_by_id(tx, organization_id, ids)
        found: dict[str, list[EnvironmentSummary]] = {}
        for target in sorted(targets, key=lambda target: target.environment_id):
            deployment = current.get(target.current_id or "")
            where = await planes.environment_by_id(tx, organization_id, target.environment_id)
            if deployment is None or where is None:
                continue
            plane, view = await service.view_of(tx, target.plane_id, self._clock.now())
            line = views.summary(target, deployment, view, where.name, plane.gateway_url)
            found.setdefault(target.component_id, []).append(line)
        return found
