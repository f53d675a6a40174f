"""Routes of data planes, environments and pipelines, and the WebSocket that agents dial."""

from __future__ import annotations

import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Response, WebSocket
from pydantic import Field, StrictBool

from minuet.control.identity.api import Scoped
from minuet.control.identity.model import Caller, Role
from minuet.control.planes import service, session, store
from minuet.control.planes.link import Links
from minuet.control.planes.model import DEFAULT_PLANE, DataPlane, Environment, Pipeline
from minuet.control.planes.service import Dependents
from minuet.kernel.clock import Clock
from minuet.kernel.conditions import Condition, Status
from minuet.kernel.errors import Forbidden
from minuet.kernel.names import MAX_DISPLAY_NAME, MAX_NAME
from minuet.web import auth, etags, routing
from minuet.web.etags import IfMatch
from minuet.web.models import Input, Listing, Model, Timestamp
from minuet.web.paging import Paging
from minuet.web.routing import Tx

Name = Annotated[str, Path(max_length=MAX_NAME)]


_IN_FULL = "For operators, and for the owner of a plane that is not shared."


class ConditionBody(Model):
    """One statement about one thing."""

    type: str
    status: Status
    reason: str
    message: str
    generation: int
    since: Timestamp

    @classmethod
    def of(cls, condition: Condition) -> ConditionBody:
        """Returns the form of a condition that answers show."""
        return cls(
            type=condition.type.value,
            status=condition.status,
            reason=condition.reason,
            message=condition.message,
            generation=condition.generation,
            since=condition.since,
        )


class DataPlaneBody(Model):
    """A data plane; `unknownSince` is there while its link is down."""

    id: str
    name: str
    shared: bool
    connected: bool
    since: Timestamp
    last_seen: Timestamp | None = None
    unknown_since: Timestamp | None = None
    isolation: str
    gateway_url: str
    gateway_ready: bool
    agent_version: str
    warnings: list[str]
    epoch: int | None = Field(None, description=_IN_FULL)
    revision: int | None = Field(None, description=_IN_FULL)
    acknowledged_revision: int | None = Field(None, description=_IN_FULL)
    conditions: list[ConditionBody]


class EnvironmentBody(Model):
    """An environment."""

    id: str
    name: str
    display_name: str
    data_plane: str
    critical: bool
    created_at: Timestamp


class EnvironmentInput(Input):
    """What a new environment is to be."""

    name: str = Field(max_length=MAX_NAME, examples=["staging"])
    display_name: str | None = Field(None, max_length=MAX_DISPLAY_NAME)
    data_plane: str = Field(DEFAULT_PLANE, max_length=MAX_NAME)
    critical: StrictBool = False


class EnvironmentChange(Input):
    """What is to change about an environment; what is left out stays."""

    display_name: str | None = Field(None, max_length=MAX_DISPLAY_NAME)
    critical: StrictBool | None = None


Stages = Annotated[list[Annotated[str, Field(max_length=MAX_NAME)]], Field(min_length=1, max_length=20)]


class PipelineBody(Model):
    """A pipeline: the environments a release passes through, in order."""

    id: str
    name: str
    display_name: str
    environments: list[str]
    created_at: Timestamp


class PipelineInput(Input):
    """What a new pipeline is to be."""

    name: str = Field(max_length=MAX_NAME, examples=["release"])
    display_name: str | None = Field(None, max_length=MAX_DISPLAY_NAME)
    environments: Stages


class PipelineChange(Input):
    """What is to change about a pipeline; what is left out stays."""

    display_name: str | None = Field(None, max_length=MAX_DISPLAY_NAME)
    environments: Stages | None = None


class EpochBody(Model):
    """Where a data plane's log goes on after a restore."""

    epoch: int
    revision: int


def router(clock: Clock, links: Links, dependents: Dependents) -> APIRouter:
    """Returns the routes of this slice, below `/api/v1`."""
    routes = APIRouter()
    routes.include_router(_data_planes(clock, links))
    routes.include_router(_environments(clock, dependents))
    routes.include_router(_pipelines(clock, dependents))
    routes.include_router(_link(links))
    return routes


def _data_planes(clock: Clock, links: Links) -> APIRouter:
    routes = routing.router("/organizations/{organization}/data-planes", tags=["data planes"])

    @routes.get("")
    async def list_data_planes(scope: Scoped, page: Paging, tx: Tx) -> Listing[DataPlaneBody]:
        """Lists the data planes that the organization may use."""
        rows = await store.usable_planes(tx, scope.organization_id, page.after, page.fetch)
        shown, following = page.cut(rows, lambda plane: plane.name)
        items = [_plane_body(plane, clock.now(), in_full=_in_full(plane, scope.caller)) for plane in shown]
        return Listing(items=items, next=following)

    @routes.get("/{data_plane}")
    async def get_data_plane(scope: Scoped, data_plane: Name, tx: Tx, response: Response) -> DataPlaneBody:
        """Shows one data plane: whether it is connected, what it holds and what it says of itself."""
        plane = await service.get_plane(tx, scope.organization_id, data_plane)
        body = _plane_body(plane, clock.now(), in_full=_in_full(plane, scope.caller))
        etags.put(response, body)
        return body

    @routes.post("/{data_plane}/epochs", status_code=201)
    async def begin_epoch(scope: Scoped, data_plane: Name, tx: Tx) -> EpochBody:
        """Goes on after the control plane was restored from a backup. For operators."""
        scope.caller.must_operate()
        plane = await service.get_plane(tx, scope.organization_id, data_plane)
        position = await links.desired.begin_epoch(tx, plane.id)
        return EpochBody(epoch=position.epoch, revision=position.revision)

    return routes


def _environments(clock: Clock, dependents: Dependents) -> APIRouter:
    routes = routing.router("/organizations/{organization}/environments", tags=["environments"])

    @routes.post("", status_code=201)
    async def create_environment(scope: Scoped, body: EnvironmentInput, tx: Tx, response: Response) -> EnvironmentBody:
        """Makes an environment on a data plane."""
        made = await service.create_environment(
            tx,
            scope.organization_id,
            body.name,
            display_name=body.display_name,
            plane=body.data_plane,
            critical=body.critical,
            now=clock.now(),
        )
        shown = _environment_body(made)
        etags.put(response, shown)
        return shown

    @routes.get("")
    async def list_environments(scope: Scoped, page: Paging, tx: Tx) -> Listing[EnvironmentBody]:
        """Lists the organization's environments."""
        rows = await store.environments(tx, scope.organization_id, page.after, page.fetch)
        shown, following = page.cut(rows, lambda environment: environment.name)
        return Listing(items=[_environment_body(item) for item in shown], next=following)

    @routes.get("/{environment}")
    async def get_environment(scope: Scoped, environment: Name, tx: Tx, response: Response) -> EnvironmentBody:
        """Shows one environment."""
        body = _environment_body(await service.get_environment(tx, scope.organization_id, environment))
        etags.put(response, body)
        return body

    @routes.patch("/{environment}")
    async def change_environment(
        *,
        scope: Scoped,
        environment: Name,
        body: EnvironmentChange,
        tx: Tx,
        response: Response,
        if_match: IfMatch = None,
    ) -> EnvironmentBody:
        """Changes display name and whether it is critical; name and data plane never change."""
        found = await service.get_environment(tx, scope.organization_id, environment)
        etags.check(if_match, _environment_body(found))
        changed = await service.change_environment(tx, found, display_name=body.display_name, critical=body.critical)
        shown = _environment_body(changed)
        etags.put(response, shown)
        return shown

    @routes.delete("/{environment}", status_code=204)
    async def delete_environment(scope: Scoped, environment: Name, tx: Tx, if_match: IfMatch = None) -> None:
        """Removes an environment where nothing runs and that no pipeline uses, with its configurations and history."""
        found = await service.get_environment(tx, scope.organization_id, environment)
        etags.check(if_match, _environment_body(found))
        await service.delete_environment(tx, found, dependents)

    return routes


def _pipelines(clock: Clock, dependents: Dependents) -> APIRouter:
    routes = routing.router("/organizations/{organization}/pipelines", tags=["pipelines"])

    @routes.post("", status_code=201)
    async def create_pipeline(scope: Scoped, body: PipelineInput, tx: Tx, response: Response) -> PipelineBody:
        """Makes a pipeline through environments that exist."""
        made = await service.create_pipeline(
            tx,
            scope.organization_id,
            body.name,
            body.environments,
            display_name=body.display_name,
            now=clock.now(),
        )
        shown = _pipeline_body(made)
        etags.put(response, shown)
        return shown

    @routes.get("")
    async def list_pipelines(scope: Scoped, page: Paging, tx: Tx) -> Listing[PipelineBody]:
        """Lists the organization's pipelines."""
        rows = await store.pipelines(tx, scope.organization_id, page.after, page.fetch)
        shown, following = page.cut(rows, lambda pipeline: pipeline.name)
        return Listing(items=[_pipeline_body(item) for item in shown], next=following)

    @routes.get("/{pipeline}")
    async def get_pipeline(scope: Scoped, pipeline: Name, tx: Tx, response: Response) -> PipelineBody:
        """Shows one pipeline."""
        body = _pipeline_body(await service.get_pipeline(tx, scope.organization_id, pipeline))
        etags.put(response, body)
        return body

    @routes.patch("/{pipeline}")
    async def change_pipeline(
        *, scope: Scoped, pipeline: Name, body: PipelineChange, tx: Tx, response: Response, if_match: IfMatch = None
    ) -> PipelineBody:
        """Changes display name and environments. What is deployed stays; promotion follows the new order at once."""
        found = await service.get_pipeline(tx, scope.organization_id, pipeline)
        etags.check(if_match, _pipeline_body(found))
        changed = await service.change_pipeline(
            tx, found, dependents, display_name=body.display_name, environments=body.environments
        )
        shown = _pipeline_body(changed)
        etags.put(response, shown)
        return shown

    @routes.delete("/{pipeline}", status_code=204)
    async def delete_pipeline(scope: Scoped, pipeline: Name, tx: Tx, if_match: IfMatch = None) -> None:
        """Removes a pipeline, unless it is the default one or the only way to an environment that is used."""
        found = await service.get_pipeline(tx, scope.organization_id, pipeline)
        etags.check(if_match, _pipeline_body(found))
        await service.delete_pipeline(tx, found, dependents)

    return routes


def _link(links: Links) -> APIRouter:
    routes = APIRouter()

    @routes.websocket("/planes/{plane}/link")
    async def link(socket: WebSocket, plane: str) -> None:
        caller: Caller = await auth.authenticate(socket)
        caller.must_be(Role.AGENT)
        async with links.database.reading() as tx:
            found = await store.plane_by_name(tx, plane)
        if found is None or found.id != caller.plane_id:
            raise Forbidden("the credential is not one of this data plane", code="WrongCredential")
        await session.serve(socket, links, found.id, found.name)

    return routes


def _in_full(plane: DataPlane, caller: Caller) -> bool:
    """Whether a caller may see what tells of other organizations' workloads on the plane."""
    return caller.operator or plane.organization_id is not None


def _plane_body(plane: DataPlane, now: datetime.datetime, *, in_full: bool) -> DataPlaneBody:
    return DataPlaneBody(
        id=plane.id,
        name=plane.name,
        shared=plane.organization_id is None,
        connected=plane.is_connected(now),
        since=plane.since,
        last_seen=plane.last_seen,
        unknown_since=plane.unknown_since(now),
        isolation=plane.isolation,
        gateway_url=plane.gateway_url,
        gateway_ready=plane.gateway_ready,
        agent_version=plane.agent_version,
        warnings=list(plane.warnings if in_full else plane.told_warnings),
        epoch=plane.epoch if in_full else None,
        revision=plane.revision if in_full else None,
        acknowledged_revision=plane.acknowledged_revision if in_full else None,
        conditions=[ConditionBody.of(condition) for condition in plane.conditions(now, in_full=in_full)],
    )


def _environment_body(environment: Environment) -> EnvironmentBody:
    return EnvironmentBody(
        id=environment.id,
        name=environment.name,
        display_name=environment.display_name,
        data_plane=environment.plane,
        critical=environment.critical,
        created_at=environment.created_at,
    )


def _pipeline_body(pipeline: Pipeline) -> PipelineBody:
    return PipelineBody(
        id=pipeline.id,
        name=pipeline.name,
        display_name=pipeline.display_name,
        environments=list(pipeline.environments),
        created_at=pipeline.created_at,
    )
