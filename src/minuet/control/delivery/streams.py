"""Streams about a component in an environment: how it stands, and what its application writes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from minuet.control.catalog import service as catalog
from minuet.control.catalog import store as catalog_store
from minuet.control.catalog.api import ComponentName, ProjectName
from minuet.control.catalog.model import Component
from minuet.control.configuration.api import ENVIRONMENT, EnvironmentName
from minuet.control.delivery import queries, service
from minuet.control.delivery.model import Target
from minuet.control.delivery.views import ComponentEnvironmentBody
from minuet.control.identity.api import Scope, Scoped
from minuet.control.planes import service as planes
from minuet.control.planes import store as planes_store
from minuet.control.planes.link import ACKNOWLEDGED, Links
from minuet.control.planes.model import Environment
from minuet.infra.database import Database, Transaction
from minuet.infra.events import Event
from minuet.infra.outbox import Bus
from minuet.kernel.clock import Clock, rfc3339
from minuet.kernel.errors import Exhausted, NotFound, Unavailable, invalid_field
from minuet.kernel.ids import new_id
from minuet.protocol.frames import LogLine, LogQuery
from minuet.web import routing, streams
from minuet.web.models import Model, Moment
from minuet.web.streams import Check, EventStream, LastEventId, ServerEvent

RECHECK_SECONDS = 10.0
"""How late a change is shown that comes with the time alone, such as a replica that is gone."""

MAX_TAIL = 10_000

MAX_READINGS_OF_ONE = 16
"""Logs of one data plane that one organization reads at once in a process: a quarter of what the plane answers."""


class LineBody(Model):
    """One line an application wrote; `dropped` counts lines lost before this one."""

    time: str
    stream: Literal["stdout", "stderr", "system"]
    instance: str
    message: str
    dropped: int = 0


class LineEvent(Model):
    """One line of the log; its id is its time."""

    event: Literal["line"]
    id: str
    data: LineBody


class EnvironmentEvent(Model):
    """How the component stands in the environment now."""

    event: Literal["environment"]
    data: ComponentEnvironmentBody


class EndEvent(Model):
    """Nothing will follow."""

    event: Literal["end"]
    data: dict[str, Any]


class Streams:
    """The streaming routes of delivery; one per server process."""

    def __init__(self, database: Database, bus: Bus, links: Links, clock: Clock) -> None:
        self._database = database
        self._bus = bus
        self._links = links
        self._clock = clock
        self._readings: Counter[tuple[str, str]] = Counter()

    def router(self) -> APIRouter:
        """Returns the routes, below `/api/v1`."""
        routes = routing.router(ENVIRONMENT, tags=["deployments"])

        @routes.get("/events", response_class=EventStream, responses=streams.responses(EnvironmentEvent | EndEvent))
        async def watch_component_environment(
            *,
            request: Request,
            scope: Scoped,
            project: ProjectName,
            component: ComponentName,
            environment: EnvironmentName,
        ) -> EventStream:
            """Streams a component in an environment as it changes: `environment` events, the first one at once.

            Ends with `end` when the component or the environment is gone.
            """
            owner, where = await self._found(scope, project, component, environment)
            check = self._check(scope, owner, where)
            return streams.stream(request, self._changes(owner, where), owner=scope.organization_id, check=check)

        @routes.get("/logs", response_class=EventStream, responses=streams.responses(LineEvent | EndEvent))
        async def read_logs(
            *,
            request: Request,
            scope: Scoped,
            project: ProjectName,
            component: ComponentName,
            environment: EnvironmentName,
            tail: Annotated[int, Query(ge=0, le=MAX_TAIL, description="Lines from the end.")] = 200,
            follow: Annotated[bool, Query(description="Go on with new lines.")] = False,
            since: Annotated[Moment | None, Query(description="Only lines from this moment on.")] = None,
            instance: Annotated[str | None, Query(max_length=64)] = None,
            last_event_id: LastEventId = None,
        ) -> EventStream:
            """Streams what the application writes: `line` events, then `end`. 503 without a link to the plane.

            The id of a line is its time. A reader that resumes after one gets the lines of that very moment again.
            """
            owner, where = await self._found(scope, project, component, environment)
            begin = _resumed(last_event_id) or since
            query = LogQuery(
                id=new_id("qry"),
                key=f"{owner.id}/{where.id}",
                tail=tail if last_event_id is None else MAX_TAIL,
                follow=follow,
                since=None if begin is None else rfc3339(begin),
                instance=instance,
            )
            asked = service.Request(scope.organization, owner, where, scope.caller.name, self._clock.now())
            async with self._database.reading() as tx:
                target = await service.get_target(tx, asked)
                await self._check_reachable(tx, target)
            source = self._lines(target, self._links.logs(target.plane_id, query))
            return streams.stream(request, source, owner=scope.organization_id, check=self._check(scope, owner, where))

        return routes

    async def _check_reachable(self, tx: Transaction, target: Target) -> None:
        """Raises for a plane whose link is not here, and for an organization that reads as much as one may."""
        if self._readings[target.plane_id, target.organization_id] >= MAX_READINGS_OF_ONE:
            raise Exhausted(
                f"the organization reads {MAX_READINGS_OF_ONE} logs of this data plane already", hint="close one"
            )
        plane = await planes_store.plane_by_id(tx, target.plane_id)
        if plane is not None and plane.is_connected(self._clock.now()) and not self._links.holds(plane.id):
            raise Unavailable(
                "the data plane is connected to another replica of the server, which alone can read its logs",
                code="LinkElsewhere",
                hint="ask again: a load balancer may lead to that replica",
            )

    def _check(self, scope: Scope, component: Component, where: Environment) -> Check:
        """Returns what raises once the component or the environment is gone, also if others took their names."""

        async def check() -> None:
            found = await self._found(scope, component.project, component.name, where.name)
            if (found[0].id, found[1].id) != (component.id, where.id):
                raise NotFound(f"the component {component.name} is gone", code="ComponentNotFound")

        return check

    async def _lines(self, target: Target, lines: AsyncIterator[LogLine]) -> AsyncIterator[ServerEvent]:
        place = (target.plane_id, target.organization_id)
        self._readings[place] += 1
        try:
            async for line in lines:
                yield ServerEvent("line", line, line.time)
            yield ServerEvent("end", {})
        finally:
            self._readings[place] -= 1
            if not self._readings[place]:
                del self._readings[place]

    async def _found(
        self, scope: Scope, project: str, component: str, environment: str
    ) -> tuple[Component, Environment]:
        async with self._database.reading() as tx:
            owner = await catalog.get_component(tx, scope.organization_id, project, component)
            return owner, await planes.get_environment(tx, scope.organization_id, environment)

    async def _changes(self, component: Component, where: Environment) -> AsyncIterator[ServerEvent]:
        shown: ComponentEnvironmentBody | None = None
        with self._bus.subscribe(service.CHANGED, service.REQUESTED, ACKNOWLEDGED) as events:
            while True:
                async with self._database.reading() as tx:
                    if not await _exists(tx, component, where):
                        break
                    body = await queries.environment(tx, component, where, self._clock.now())
                if body != shown:
                    yield ServerEvent("environment", body)
                    shown = body
                await _news(events, component, where)
        yield ServerEvent("end", {})


async def _news(events: AsyncIterator[Event], component: Component, where: Environment) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RECHECK_SECONDS):
            async for event in events:
                is_plane = event.subject == where.plane_id
                is_own = event.subject == component.id and event.data.get("environment_id") == where.id
                if is_plane or is_own:
                    return


async def _exists(tx: Transaction, component: Component, where: Environment) -> bool:
    organization_id = component.organization_id
    found = await catalog_store.component_by_id(tx, organization_id, component.id)
    return found is not None and await planes_store.environment_by_id(tx, organization_id, where.id) is not None


def _resumed(last_event_id: str | None) -> datetime.datetime | None:
    """Returns the moment that the id of a line stands for; raises `Invalid` for what is no such id."""
    if last_event_id is None:
        return None
    try:
        moment = datetime.datetime.fromisoformat(last_event_id)
        return moment.astimezone(datetime.UTC) if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    except (ValueError, OverflowError):
        raise invalid_field("Last-Event-ID", "is not the id of a line", given=last_event_id) from None
