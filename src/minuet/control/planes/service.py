"""Use-cases of data planes, environments and pipelines. Routes, the first start and slices above call it."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from minuet.control.planes import store
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


async def create_pipeline(
    tx: Transaction, organization_id: str, name: str, environments: Sequence[str], *, now: datetime.datetime
) -> Pipeline:
    """Makes a pipeline through environments that exist, each once."""
    check_name("name", name)
    if await store.pipeline_by_name(tx, organization_id, name) is not None:
        raise Conflict(f"there is a pipeline {name} already", code="AlreadyExists", hint="choose another name")
    if await store.count(tx, store.PIPELINES, organization_id) >= MAX_PIPELINES:
        raise Exhausted(f"an organization has at most {MAX_PIPELINES} pipelines")
    known = [item.name for item in await store.environments(tx, organization_id, None, MAX_ENVIRONMENTS)]
    for position, environment in enumerate(environments):
        field = f"environments.{position}"
        if environment not in known:
            raise invalid_field(field, "is not an environment", given=environment, allowed=known)
        if environment in environments[:position]:
            raise invalid_field(field, "is named twice", given=environment)
    made = Pipeline(new_id("ppl"), organization_id, name, tuple(environments), now)
    await store.insert_pipeline(tx, made)
    tx.emit(Event("pipeline.created", organization_id, made.id, {"name": name}))
    return made


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
    await create_pipeline(tx, organization.id, DEFAULT_PIPELINE, names, now=now)
