"""Routes of releases and deployments, and the verbs on a component in an environment."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field, StrictInt

from minuet.control.catalog.api import COMPONENT, CurrentComponent, confirmed_by
from minuet.control.catalog.model import Component
from minuet.control.configuration.api import ENVIRONMENT, CurrentEnvironment
from minuet.control.delivery import model, queries, service, store, views
from minuet.control.delivery.model import Deployment
from minuet.control.delivery.service import Request
from minuet.control.delivery.streams import Streams
from minuet.control.delivery.views import ComponentEnvironmentBody, DeploymentBody, ReleaseBody
from minuet.control.identity.api import Scope, Scoped
from minuet.control.planes import service as planes
from minuet.control.planes.model import Environment
from minuet.infra.database import Transaction
from minuet.kernel.clock import Clock
from minuet.kernel.errors import NotFound
from minuet.kernel.names import MAX_NAME
from minuet.web import etags, routing
from minuet.web.etags import IfMatch
from minuet.web.models import Input, Listing
from minuet.web.paging import Paging
from minuet.web.routing import Tx

DeploymentName = Annotated[str, Path(max_length=80, description="Id of the deployment.")]
ReleaseName = Annotated[str, Path(max_length=40, description="Id of the release, `YYYYMMDD-n`.")]


class DeploymentInput(Input):
    """What to deploy where: a build, a release, or the newest build that succeeded."""

    environment: str = Field(max_length=MAX_NAME, examples=["development"])
    build: str | None = Field(None, max_length=MAX_NAME + 12)
    release: str | None = Field(None, max_length=40)
    replicas: StrictInt | None = Field(None, ge=0, le=model.MAX_REPLICAS)


class RollbackInput(Input):
    """Where to go back to; without `to`, the last good deployment."""

    to: str | None = Field(None, max_length=80, description="A release or a deployment of this environment.")


class ScaleInput(Input):
    """How many instances are to run; 0 suspends."""

    replicas: StrictInt = Field(ge=0, le=model.MAX_REPLICAS)


class Apply:
    """Brings a changed configuration into force; the configuration's routes call it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def __call__(
        self, tx: Transaction, scope: Scope, component: Component, environment: Environment
    ) -> str | None:
        """Returns the name of the deployment it made, if something is deployed there."""
        made = await service.configure(tx, _request(scope, component, environment, self._clock))
        return None if made is None else made.name


def router(clock: Clock, streams: Streams) -> APIRouter:
    """Returns the routes of this slice, below `/api/v1`."""
    routes = APIRouter()
    routes.include_router(_releases())
    routes.include_router(_deployments(clock))
    routes.include_router(_environment(clock))
    routes.include_router(_verbs(clock))
    routes.include_router(streams.router())
    return routes


def _releases() -> APIRouter:
    routes = routing.router(f"{COMPONENT}/releases", tags=["deployments"])

    @routes.get("")
    async def list_releases(component: CurrentComponent, page: Paging, tx: Tx) -> Listing[ReleaseBody]:
        """Lists releases, newest first."""
        rows = await store.releases(tx, component.organization_id, component.id, page.after, page.fetch)
        shown, following = page.cut(rows, lambda release: release.id)
        return Listing(items=[views.release_body(release) for release in shown], next=following)

    @routes.get("/{release}")
    async def get_release(component: CurrentComponent, release: ReleaseName, tx: Tx, response: Response) -> ReleaseBody:
        """Shows one release."""
        found = await store.release_by_name(tx, component.organization_id, component.id, release)
        if found is None:
            raise NotFound(f"there is no release {release} of {component.name}", code="ReleaseNotFound")
        body = views.release_body(found)
        etags.put(response, body)
        return body

    return routes


def _deployments(clock: Clock) -> APIRouter:
    routes = routing.router(f"{COMPONENT}/deployments", tags=["deployments"])

    @routes.post("", status_code=201)
    async def create_deployment(
        scope: Scoped, component: CurrentComponent, body: DeploymentInput, tx: Tx
    ) -> DeploymentBody:
        """Deploys to the first environment, or promotes to a later one what was Ready in the one before."""
        where = await planes.get_environment(tx, scope.organization_id, body.environment)
        request = _request(scope, component, where, clock)
        made = await service.deploy(tx, request, build=body.build, release=body.release, replicas=body.replicas)
        return await _shown(tx, component, made, clock)

    @routes.get("")
    async def list_deployments(
        component: CurrentComponent,
        page: Paging,
        tx: Tx,
        environment: Annotated[str | None, Query(max_length=MAX_NAME)] = None,
    ) -> Listing[DeploymentBody]:
        """Lists deployments, newest first, of one environment or of all."""
        where = None
        if environment is not None:
            where = (await planes.get_environment(tx, component.organization_id, environment)).id
        rows = await store.deployments(
            tx, component.organization_id, component.id, environment_id=where, before=page.after, limit=page.fetch
        )
        shown, following = page.cut(rows, lambda deployment: deployment.id)
        return Listing(items=await queries.deployment_bodies(tx, component, shown, clock.now()), next=following)

    @routes.get("/{deployment}")
    async def get_deployment(
        component: CurrentComponent, deployment: DeploymentName, tx: Tx, response: Response
    ) -> DeploymentBody:
        """Shows one deployment with all that is known of it."""
        body = await _shown(tx, component, await service.get_deployment(tx, component, deployment), clock)
        etags.put(response, body)
        return body

    return routes


def _environment(clock: Clock) -> APIRouter:
    routes = routing.router(ENVIRONMENT, tags=["deployments"])

    @routes.get("")
    async def get_component_environment(
        component: CurrentComponent, environment: CurrentEnvironment, tx: Tx, response: Response
    ) -> ComponentEnvironmentBody:
        """Shows a component in an environment: address, current and serving version, conditions, instances.

        The ETag speaks of what is asked for, which the verbs below change, and not of what is observed.
        """
        etags.put(response, await _tag(tx, component, environment))
        return await queries.environment(tx, component, environment, clock.now())

    @routes.delete("", status_code=202)
    async def undeploy(
        scope: Scoped,
        component: CurrentComponent,
        environment: CurrentEnvironment,
        tx: Tx,
        if_match: IfMatch = None,
    ) -> ComponentEnvironmentBody:
        """Removes a component from an environment; what runs there is stopped, its history stays."""
        etags.check(if_match, await _tag(tx, component, environment))
        target = await service.get_target(tx, _request(scope, component, environment, clock))
        await service.undeploy(tx, target, confirmed_by=confirmed_by(scope), now=clock.now())
        return await queries.environment(tx, component, environment, clock.now())

    return routes


def _verbs(clock: Clock) -> APIRouter:
    routes = routing.router(ENVIRONMENT, tags=["deployments"])

    @routes.post("/rollback", status_code=201)
    async def roll_back(
        *,
        scope: Scoped,
        component: CurrentComponent,
        environment: CurrentEnvironment,
        tx: Tx,
        response: Response,
        body: RollbackInput | None = None,
        if_match: IfMatch = None,
    ) -> DeploymentBody:
        """Goes back to the last good deployment, or to the one named, with its configuration and endpoints."""
        etags.check(if_match, await _tag(tx, component, environment))
        request = _request(scope, component, environment, clock)
        made = await service.rollback(tx, request, None if body is None else body.to)
        return await _answer(tx, request, made, response)

    @routes.post("/redeploy", status_code=201)
    async def redeploy(
        *,
        scope: Scoped,
        component: CurrentComponent,
        environment: CurrentEnvironment,
        tx: Tx,
        response: Response,
        if_match: IfMatch = None,
    ) -> DeploymentBody:
        """Starts the current release afresh, with the newest configuration."""
        etags.check(if_match, await _tag(tx, component, environment))
        request = _request(scope, component, environment, clock)
        made = await service.redeploy(tx, request)
        return await _answer(tx, request, made, response)

    @routes.post("/scale", status_code=201)
    async def scale(
        *,
        scope: Scoped,
        component: CurrentComponent,
        environment: CurrentEnvironment,
        tx: Tx,
        body: ScaleInput,
        response: Response,
        if_match: IfMatch = None,
    ) -> DeploymentBody:
        """Changes how many instances run; nothing is restarted."""
        etags.check(if_match, await _tag(tx, component, environment))
        request = _request(scope, component, environment, clock)
        made = await service.scale(tx, request, body.replicas)
        return await _answer(tx, request, made, response)

    @routes.post("/suspend", status_code=201)
    async def suspend(
        *,
        scope: Scoped,
        component: CurrentComponent,
        environment: CurrentEnvironment,
        tx: Tx,
        response: Response,
        if_match: IfMatch = None,
    ) -> DeploymentBody:
        """Stops everything of it; its address answers 503 until it is resumed."""
        etags.check(if_match, await _tag(tx, component, environment))
        request = _request(scope, component, environment, clock)
        made = await service.suspend(tx, request)
        return await _answer(tx, request, made, response)

    @routes.post("/resume", status_code=201)
    async def resume(
        *,
        scope: Scoped,
        component: CurrentComponent,
        environment: CurrentEnvironment,
        tx: Tx,
        response: Response,
        if_match: IfMatch = None,
    ) -> DeploymentBody:
        """Starts again what was suspended, as it was."""
        etags.check(if_match, await _tag(tx, component, environment))
        request = _request(scope, component, environment, clock)
        made = await service.resume(tx, request)
        return await _answer(tx, request, made, response)

    return routes


async def _tag(tx: Transaction, component: Component, environment: Environment) -> str:
    """What the ETag of a component in an environment is of: which deployment is asked for, and the how manieth."""
    target = await store.target(tx, component.organization_id, component.id, environment.id)
    return "none" if target is None else f"{target.current_id}/{target.generation}"


async def _answer(tx: Transaction, request: Request, made: Deployment, response: Response) -> DeploymentBody:
    """Shows what a verb made, with the ETag that the environment has now."""
    etags.put(response, await _tag(tx, request.component, request.environment))
    return (await queries.deployment_bodies(tx, request.component, [made], request.now))[0]


async def _shown(tx: Transaction, component: Component, deployment: Deployment, clock: Clock) -> DeploymentBody:
    return (await queries.deployment_bodies(tx, component, [deployment], clock.now()))[0]


def _request(scope: Scope, component: Component, environment: Environment, clock: Clock) -> Request:
    return Request(scope.organization, component, environment, scope.caller.name, clock.now())
