"""Use-cases of data planes, environments and pipelines. Routes, the first start and slices above call it."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from minuet.control.planes import log, store
from minuet.control.planes.model import (
    DEFAULT_ENVIRONMENTS,
    DEFAULT_PIPELINE,
    DEFAULT_PLANE,
    DataPlane,
    Environment,
    Pipeline,
)
from minuet.control.tenancy.model import Organization
from minuet.infra.database import Transaction
from minuet.infra.events import Event
from minuet.kernel.clock import SystemClock
from minuet.kernel.errors import Conflict, Exhausted, NotFound, invalid_field
from minuet.kernel.ids import new_id
from minuet.kernel.names import check_name, check_text, nearest

MAX_ENVIRONMENTS = 50
MAX_PIPELINES = 50
SHARE = 0.25
"""Part of a shared data plane's room that one organization may use."""

MAX_NAMED = 5
"""Uses of something that an error names."""


@dataclass(frozen=True, slots=True)
class Dependents:
    """What slices above keep about environments; the composition root fills it.

    `users` names what is deployed there, so that it cannot go. `forget` removes
    what is only remembered of it.
    """

    users: Callable[[Transaction, Environment], Awaitable[Sequence[str]]]
    forget: Sequence[Callable[[Transaction, Environment], Awaitable[None]]]


async def create_plane(
    tx: Transaction, name: str, *, domain: str, now: datetime.datetime, organization_id: str | None = None
) -> DataPlane:
    """Makes a data plane that no agent has connected for yet."""
    check_name("name", name)
    if await store.plane_by_name(tx, name) is not None:
        raise Conflict(f"there is a data plane {name} already", code="AlreadyExists")
    plane = DataPlane(
        id=new_id("pln"),
        organization_id=organization_id,
        name=name,
        domain=domain,
        epoch=1,
        revision=0,
        session=0,
        sealing_key=None,
        connected=False,
        since=now,
        last_seen=None,
        isolation="",
        gateway_url="",
        gateway_ready=False,
        agent_version="",
        warnings=(),
        acknowledged_epoch=0,
        acknowledged_revision=0,
        trouble=None,
        trouble_reason=None,
        diverged_epoch=None,
        created_at=now,
    )
    await store.insert_plane(tx, plane)
    return plane


async def get_plane(tx: Transaction, organization_id: str, name: str) -> DataPlane:
    """Returns a plane that the organization may use; raises `NotFound` otherwise."""
    plane = await store.usable_plane(tx, organization_id, name)
    if plane is None:
        raise NotFound(f"there is no data plane {name}", code="DataPlaneNotFound")
    return plane


async def check_share(tx: Transaction, plane_id: str, organization_id: str) -> None:
    """Raises `Exhausted` (`PlaneShareUsed`) if an organization has all that one may have of a shared data plane.

    One organization that fills a plane would keep all others from deploying.
    """
    plane = await store.plane_by_id(tx, plane_id)
    if plane is None or plane.organization_id is not None:
        return
    documents, size = await log.used_by(tx, plane_id, organization_id)
    if documents >= SHARE * log.MAX_DOCUMENTS or size >= SHARE * log.MAX_PLANE_BYTES:
        raise Exhausted(
            f"the organization uses all that one may use of the shared data plane {plane.name}",
            code="PlaneShareUsed",
            hint="undeploy what is not used, or ask for a data plane of your own",
        )


async def create_environment(
    tx: Transaction,
    organization_id: str,
    name: str,
    *,
    display_name: str | None,
    plane: str,
    critical: bool,
    now: datetime.datetime,
) -> Environment:
    """Makes an environment on a data plane of the organization's choice."""
    check_name("name", name)
    shown = check_text("displayName", display_name or name)
    target = await store.usable_plane(tx, organization_id, plane)
    if target is None:
        raise invalid_field("dataPlane", "is not a data plane of this organization", given=plane)
    if await store.environment_by_name(tx, organization_id, name) is not None:
        raise Conflict(f"there is an environment {name} already", code="AlreadyExists", hint="choose another name")
    if await store.count(tx, store.ENVIRONMENTS, organization_id) >= MAX_ENVIRONMENTS:
        raise Exhausted(f"an organization has at most {MAX_ENVIRONMENTS} environments")
    made = Environment(new_id("env"), organization_id, name, shown, target.id, target.name, critical, now)
    await store.insert_environment(tx, made)
    tx.emit(Event("environment.created", organization_id, made.id, {"name": name}))
    return made


async def get_environment(tx: Transaction, organization_id: str, name: str) -> Environment:
    """Returns an environment by its name, in whatever case it is written; raises `NotFound`."""
    found = await store.environment_by_name(tx, organization_id, name.lower())
    if found is None:
        names = [item.name for item in await store.environments(tx, organization_id, None, MAX_ENVIRONMENTS)]
        close = nearest(name, names)
        hint = f"did you mean {close}?" if close else f"there are: {', '.join(names)}"
        raise NotFound(f"there is no environment {name}", code="EnvironmentNotFound", hint=hint)
    return found


async def change_environment(
    tx: Transaction, environment: Environment, *, display_name: str | None, critical: bool | None
) -> Environment:
    """Changes what people read and whether it is critical; name and data plane never change."""
    changed = replace(
        environment,
        display_name=environment.display_name if display_name is None else check_text("displayName", display_name),
        critical=environment.critical if critical is None else critical,
    )
    await store.change_environment(tx, changed)
    tx.emit(Event("environment.edited", changed.organization_id, changed.id, {"name": changed.name}))
    return changed


async def delete_environment(tx: Transaction, environment: Environment, dependents: Dependents) -> None:
    """Removes an environment with its configurations and its history; raises `Conflict` (`InUse`) while it is used."""
    found = await store.pipelines(tx, environment.organization_id, None, MAX_PIPELINES)
    through = [pipeline.name for pipeline in found if environment.name in pipeline.environments]
    if through:
        raise _in_use(environment.name, f"part of the pipeline {', '.join(through[:MAX_NAMED])}", "take it out first")
    users = await dependents.users(tx, environment)
    if users:
        what = f"where {', '.join(users[:MAX_NAMED])} runs or is still being removed"
        raise _in_use(environment.name, what, "undeploy it, and wait until it is gone")
    for forget in dependents.forget:
        await forget(tx, environment)
    await store.delete_environment(tx, environment)
    tx.emit(Event("environment.deleted", environment.organization_id, environment.id, {"name": environment.name}))


async def create_pipeline(
    tx: Transaction,
    organization_id: str,
    name: str,
    environments: Sequence[str],
    *,
    display_name: str | None = None,
    now: datetime.datetime,
) -> Pipeline:
    """Makes a pipeline through environments that exist, each once."""
    check_name("name", name)
    shown = check_text("displayName", display_name or name)
    if await store.pipeline_by_name(tx, organization_id, name) is not None:
        raise Conflict(f"there is a pipeline {name} already", code="AlreadyExists", hint="choose another name")
    if await store.count(tx, store.PIPELINES, organization_id) >= MAX_PIPELINES:
        raise Exhausted(f"an organization has at most {MAX_PIPELINES} pipelines")
    await _check_stages(tx, organization_id, environments)
    made = Pipeline(new_id("ppl"), organization_id, name, shown, tuple(environments), now)
    await store.insert_pipeline(tx, made)
    tx.emit(Event("pipeline.created", organization_id, made.id, {"name": name}))
    return made


async def _check_stages(tx: Transaction, organization_id: str, environments: Sequence[str]) -> None:
    known = [item.name for item in await store.environments(tx, organization_id, None, MAX_ENVIRONMENTS)]
    for position, environment in enumerate(environments):
        field = f"environments.{position}"
        if environment not in known:
            raise invalid_field(field, "is not an environment", given=environment, allowed=known)
        if environment in environments[:position]:
            raise invalid_field(field, "is named twice", given=environment)


async def change_pipeline(
    tx: Transaction,
    pipeline: Pipeline,
    dependents: Dependents,
    *,
    display_name: str | None,
    environments: Sequence[str] | None,
) -> Pipeline:
    """Changes what people read and the stages; raises `Conflict` (`InUse`) if a stage that is used would lead nowhere."""
    shown = pipeline.display_name if display_name is None else check_text("displayName", display_name)
    changed = replace(pipeline, display_name=shown)
    if environments is not None:
        await _check_stages(tx, pipeline.organization_id, environments)
        changed = replace(changed, environments=tuple(environments))
        dropped = [name for name in pipeline.environments if name not in environments]
        await _check_unused(tx, pipeline, dropped, dependents)
    await store.change_pipeline(tx, changed)
    tx.emit(Event("pipeline.edited", changed.organization_id, changed.id, {"name": changed.name}))
    return changed


async def delete_pipeline(tx: Transaction, pipeline: Pipeline, dependents: Dependents) -> None:
    """Removes a pipeline; raises `Conflict` (`InUse`) for the default one, and for one that is used."""
    if pipeline.name == DEFAULT_PIPELINE:
        raise _in_use(pipeline.name, "the pipeline that pushes deploy through", "change its environments instead")
    await _check_unused(tx, pipeline, pipeline.environments, dependents)
    await store.delete_pipeline(tx, pipeline)
    tx.emit(Event("pipeline.deleted", pipeline.organization_id, pipeline.id, {"name": pipeline.name}))


async def _check_unused(
    tx: Transaction, pipeline: Pipeline, environments: Sequence[str], dependents: Dependents
) -> None:
    """Nothing could be promoted any more to an environment that no pipeline leads to."""
    others = [
        item for item in await store.pipelines(tx, pipeline.organization_id, None, MAX_PIPELINES) if item != pipeline
    ]
    for name in environments:
        environment = await store.environment_by_name(tx, pipeline.organization_id, name)
        if environment is None or any(name in other.environments for other in others):
            continue
        users = await dependents.users(tx, environment)
        if users:
            what = f"the only way to {name}, where {', '.join(users[:MAX_NAMED])} is deployed"
            raise _in_use(pipeline.name, what, f"make another pipeline that leads to {name} first")


def _in_use(name: str, what: str, hint: str) -> Conflict:
    return Conflict(f"{name} is {what}", code="InUse", hint=hint)


async def get_pipeline(tx: Transaction, organization_id: str, name: str = DEFAULT_PIPELINE) -> Pipeline:
    """Returns a pipeline; raises `NotFound`."""
    found = await store.pipeline_by_name(tx, organization_id, name)
    if found is None:
        raise NotFound(f"there is no pipeline {name}", code="PipelineNotFound")
    return found


async def found_organization(tx: Transaction, organization: Organization) -> None:
    """Gives a new organization its environments on the default plane, and its pipeline."""
    now = SystemClock().now()
    for name, shown, critical in DEFAULT_ENVIRONMENTS:
        await create_environment(
            tx, organization.id, name, display_name=shown, plane=DEFAULT_PLANE, critical=critical, now=now
        )
    names = [name for name, _, _ in DEFAULT_ENVIRONMENTS]
    await create_pipeline(tx, organization.id, DEFAULT_PIPELINE, names, display_name="Default", now=now)


async def close_organization(tx: Transaction, organization: Organization) -> None:
    """Takes from an organization that goes what it was founded with; raises `Conflict` if it has planes of its own."""
    if await store.count(tx, store.PLANES, organization.id):
        raise Conflict(f"{organization.name} has data planes of its own", code="InUse", hint="remove them first")
    await store.delete_all(tx, organization.id)
