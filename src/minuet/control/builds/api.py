"""Routes of builds for people and pushes. `builder_api.py` has those for builders."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field, StrictBool

from minuet.control.builds import service, store
from minuet.control.builds.logs import BuildLogs, Position
from minuet.control.builds.model import Build, BuildStatus, Heard
from minuet.control.builds.service import Push
from minuet.control.catalog import service as catalog
from minuet.control.catalog.api import COMPONENT, PROJECT, ComponentName, CurrentComponent, CurrentProject, ProjectName
from minuet.control.identity.api import Scope, Scoped
from minuet.control.planes.api import ConditionBody
from minuet.infra.database import Database
from minuet.infra.events import Event
from minuet.infra.outbox import Bus
from minuet.kernel import reasons
from minuet.kernel.clock import Clock, rfc3339
from minuet.kernel.errors import NotFound, NotReady
from minuet.kernel.names import MAX_NAME
from minuet.protocol.building import Phase
from minuet.protocol.descriptor import Endpoint
from minuet.web import etags, routing, streams
from minuet.web.models import Input, Listing, Model, Moment, Timestamp
from minuet.web.paging import Paging
from minuet.web.routing import Store, Tx
from minuet.web.streams import Check, EventStream, LastEventId, ServerEvent

MAX_CHANGED_PATHS = 5000
RECHECK_SECONDS = 5.0

BuildName = Annotated[str, Path(max_length=MAX_NAME + 12, description="Id of the build, `<component>-<n>`.")]


class ArtifactBody(Model):
    """What a build made."""

    digest: str
    size: int
    command: str
    port: int | None = None
    toolchain: str
    sbom: str


class BuildConditionBody(ConditionBody):
    """Whether the build succeeded, what to do next and the last lines of its log if it did not."""

    next_step: str | None = None
    log_tail: list[str] = Field(default_factory=list)


class BuildBody(Model):
    """A build."""

    id: str
    number: int
    component: str
    project: str
    branch: str
    commit: str | None = None
    commit_message: str | None = None
    commit_author: str | None = None
    status: BuildStatus
    phases: list[Phase]
    conditions: list[BuildConditionBody]
    reason: str
    message: str
    log_tail: list[str]
    artifact: ArtifactBody | None = None
    endpoints: list[Endpoint]
    warnings: list[str]
    cancel_requested: bool
    attempts: int
    created_at: Timestamp
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    requested_by: str


class BuildInput(Input):
    """What to build: a commit, or the head of a branch, or the head of the component's branch."""

    commit: str | None = Field(None, max_length=64, description="All 40 or 64 hexadecimal digits of a commit.")
    branch: str | None = Field(None, max_length=200)


class LogLineBody(Model):
    """One line of a build's log."""

    time: str
    stream: str
    phase: str
    message: str
    dropped: int | None = None


class BuildLineEvent(Model):
    """One line of the log; its id is the attempt and the number of the line."""

    event: Literal["line"]
    id: str
    data: LogLineBody


class BuildOutcome(Model):
    """Where the build stood when its log ended."""

    status: BuildStatus
    reason: str
    message: str


class BuildEndEvent(Model):
    """Nothing will follow."""

    event: Literal["end"]
    data: BuildOutcome


class BuildEvent(Model):
    """The build as it is now."""

    event: Literal["build"]
    data: BuildBody


class RepositoryAccess(Model):
    """The project's hosted repository, and what the caller's token may do there."""

    clone_url: str
    project_id: str = Field(description="What the repository is kept under: it outlives no project of that name.")
    readable: bool
    writable: bool


class PushInput(Input):
    """What a push changed on one ref of the hosted repository."""

    ref: str = Field(max_length=300, examples=["refs/heads/main"])
    before: str = Field(max_length=64)
    after: str = Field(max_length=64)
    changed_paths: list[Annotated[str, Field(max_length=4096)]] = Field(
        default_factory=list, max_length=MAX_CHANGED_PATHS
    )
    everything: StrictBool = Field(False, description="Whether more changed than can be listed: all components then.")


class PushBody(Model):
    """The builds that a push started."""

    builds: list[BuildBody]


def router(clock: Clock, bus: Bus, logs: BuildLogs) -> APIRouter:
    """Returns the routes of this file, below `/api/v1`."""
    routes = APIRouter()
    routes.include_router(_builds(clock))
    routes.include_router(_streams(clock, bus, logs))
    routes.include_router(_repository(clock))
    return routes


def _builds(clock: Clock) -> APIRouter:
    routes = routing.router(f"{COMPONENT}/builds", tags=["builds"])

    @routes.post("", status_code=201)
    async def create_build(scope: Scoped, component: CurrentComponent, body: BuildInput, tx: Tx) -> BuildBody:
        """Queues a build."""
        active = await catalog.active_component(tx, scope.organization_id, component.project, component.name)
        made = await service.create_build(
            tx,
            active,
            scope.organization,
            commit=body.commit,
            branch=body.branch,
            requested_by=scope.caller.name,
            now=clock.now(),
        )
        return build_body(made, await service.heard(tx, clock.now()))

    @routes.get("")
    async def list_builds(component: CurrentComponent, page: Paging, tx: Tx) -> Listing[BuildBody]:
        """Lists builds, newest first."""
        rows = await store.listed(tx, component.organization_id, component.id, page.number(), page.fetch)
        shown, following = page.cut(rows, lambda build: str(build.number))
        heard = await service.heard(tx, clock.now())
        return Listing(items=[build_body(build, heard) for build in shown], next=following)

    @routes.get("/{build}")
    async def get_build(component: CurrentComponent, build: BuildName, tx: Tx, response: Response) -> BuildBody:
        """Shows one build."""
        body = build_body(await service.get_build(tx, component, build), await service.heard(tx, clock.now()))
        etags.put(response, body)
        return body

    @routes.post("/{build}/cancel")
    async def cancel_build(component: CurrentComponent, build: BuildName, tx: Tx) -> BuildBody:
        """Ends a waiting build; asks the builder to end a running one."""
        found = await service.get_build(tx, component, build)
        cancelled = await service.cancel_build(tx, found, clock.now())
        return build_body(cancelled, await service.heard(tx, clock.now()))

    return routes


def _streams(clock: Clock, bus: Bus, logs: BuildLogs) -> APIRouter:
    routes = routing.router(f"{COMPONENT}/builds/{{build}}", tags=["builds"])

    @routes.get("/logs", response_class=EventStream, responses=streams.responses(BuildLineEvent | BuildEndEvent))
    async def read_build_log(
        *,
        request: Request,
        scope: Scoped,
        project: ProjectName,
        component: ComponentName,
        build: BuildName,
        database: Store,
        follow: Annotated[bool, Query(description="Go on with new lines until the build ends.")] = False,
        since: Annotated[Moment | None, Query(description="Only lines from this moment on.")] = None,
        last_event_id: LastEventId = None,
    ) -> EventStream:
        """Streams the log: `line` events, then `end`. The builder keeps it; 503 when the builder is down.

        The id of a line is its attempt and number; a reader that resumes after one gets the lines that follow.
        """
        after = Position.of(last_event_id)
        found = await _found(database, scope, project, component, build)
        moment = None if since is None else rfc3339(since)
        source = await logs.read(found, follow=follow, since=moment, after=after)
        check = _check(database, scope, found)
        return streams.stream(request, source, owner=scope.organization_id, check=check)

    @routes.get("/events", response_class=EventStream, responses=streams.responses(BuildEvent))
    async def watch_build(
        request: Request,
        scope: Scoped,
        project: ProjectName,
        component: ComponentName,
        build: BuildName,
        database: Store,
    ) -> EventStream:
        """Streams the build as it changes: `build` events, ending with its last state."""
        found = await _found(database, scope, project, component, build)
        source = _changes(database, bus, clock, found)
        return streams.stream(request, source, owner=scope.organization_id, check=_check(database, scope, found))

    return routes


def _repository(clock: Clock) -> APIRouter:
    routes = routing.router(PROJECT, tags=["repositories"])

    @routes.get("/repository")
    async def get_repository(scope: Scoped, project: CurrentProject, tx: Tx) -> RepositoryAccess:
        """Tells where the hosted repository is, and what this token may do there."""
        url = await service.builder_url(tx)
        if url is None:
            raise NotReady(
                "no builder has registered yet, and repositories are hosted there",
                code="NoBuilder",
                hint="`minuet status` shows whether the builder runs",
            )
        clone_url = f"{url}/git/{scope.organization}/{project.name}.git"
        return RepositoryAccess(
            clone_url=clone_url, project_id=project.id, readable=True, writable=not scope.caller.read_only
        )

    @routes.post("/pushes", status_code=201)
    async def accept_push(scope: Scoped, project: CurrentProject, body: PushInput, tx: Tx) -> PushBody:
        """Starts builds of the components that a push touched; called by the receive hook with the pusher's token."""
        push = Push(body.ref, body.before, body.after, tuple(body.changed_paths), everything=body.everything)
        made = await service.accept_push(
            tx, project, scope.organization, push, pushed_by=scope.caller.name, now=clock.now()
        )
        heard = await service.heard(tx, clock.now())
        return PushBody(builds=[build_body(build, heard) for build in made])

    return routes


def _check(database: Database, scope: Scope, build: Build) -> Check:
    """Returns what raises once the build is gone, also if another one took its name."""

    async def check() -> None:
        found = await _found(database, scope, build.project, build.component, build.name)
        if found.id != build.id:
            raise NotFound(f"the build {build.name} is gone", code="BuildNotFound")

    return check


async def _found(database: Database, scope: Scope, project: str, component: str, build: str) -> Build:
    async with database.reading() as tx:
        owner = await catalog.get_component(tx, scope.organization_id, project, component)
        return await service.get_build(tx, owner, build)


async def _changes(database: Database, bus: Bus, clock: Clock, build: Build) -> AsyncIterator[ServerEvent]:
    shown: BuildBody | None = None
    with bus.subscribe(service.CHANGED, service.FINISHED, service.QUEUED) as events:
        while True:
            async with database.reading() as tx:
                found = await store.by_id(tx, build.organization_id, build.id)
                heard = await service.heard(tx, clock.now())
            if found is None:
                return
            body = build_body(found, heard)
            if body != shown:
                yield ServerEvent("build", body)
                shown = body
            if found.status.is_final:
                return
            await _news(events, build.id)


async def _news(events: AsyncIterator[Event], build_id: str) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RECHECK_SECONDS):
            async for event in events:
                if event.subject == build_id:
                    return


def build_body(build: Build, heard: Heard) -> BuildBody:
    """Returns the form of a build that answers show."""
    artifact = build.artifact
    return BuildBody(
        id=build.name,
        number=build.number,
        component=build.component,
        project=build.project,
        branch=build.source.branch,
        commit=build.commit,
        commit_message=build.commit_message,
        commit_author=build.commit_author,
        status=build.status,
        phases=list(build.phases),
        conditions=[
            BuildConditionBody(
                **ConditionBody.of(condition).model_dump(),
                next_step=reasons.advice(condition.reason),
                log_tail=list(condition.log_tail),
            )
            for condition in build.conditions(heard)
        ],
        reason=build.reason,
        message=build.told(heard),
        log_tail=list(build.log_tail),
        artifact=None
        if artifact is None
        else ArtifactBody(
            digest=artifact.digest,
            size=artifact.size,
            command=artifact.command,
            port=artifact.port,
            toolchain=artifact.toolchain,
            sbom=artifact.sbom,
        ),
        endpoints=list(build.descriptor.endpoints),
        warnings=list(build.warnings),
        cancel_requested=build.cancel_requested,
        attempts=build.attempts,
        created_at=build.created_at,
        started_at=build.started_at,
        finished_at=build.finished_at,
        requested_by=build.requested_by,
    )
