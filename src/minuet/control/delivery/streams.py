"""Streams about a component in an environment: how it stands, and what its application writes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from minuet.control.catalog import service as catalog
from minuet.control.catalog.api import ComponentName, ProjectName
from minuet.control.catalog.model import Component
from minuet.control.configuration.api import ENVIRONMENT, EnvironmentName
from minuet.control.delivery import queries, service
from minuet.control.delivery.views import EnvironmentBody
from minuet.control.identity.api import Scope, Scoped
from minuet.control.planes import service as planes
from minuet.control.planes.link import ACKNOWLEDGED, Links
from minuet.control.planes.model import Environment
from minuet.infra.database import Database
from minuet.infra.events import Event
from minuet.infra.outbox import Bus
from minuet.kernel.clock import Clock
from minuet.kernel.ids import new_id
from minuet.protocol.frames import LogLine, LogQuery
from minuet.web import routing, streams
from minuet.web.streams import ServerEvent

RECHECK_SECONDS = 10.0
"""How late a change is shown that comes with the time alone, such as a replica that is gone."""

MAX_TAIL = 10_000


class Streams:
    """The streaming routes of delivery; one per server process."""

    def __init__(self, database: Database, bus: Bus, links: Links, clock: Clock) -> None:
        self._database = database
        self._bus = bus
        self._links = links
        self._clock = clock

    def router(self) -> APIRouter:
        """Returns the routes, below `/api/v1`."""
        routes = routing.router(ENVIRONMENT, tags=["deployments"])

        @routes.get("/events", responses=streams.RESPONSES)
        async def watch_component_environment(
            *, scope: Scoped, project: ProjectName, component: ComponentName, environment: EnvironmentName
        ) -> StreamingResponse:
            """Streams a component in an environment as it changes: `environment` events, the first one at once."""
            owner, where = await self._found(scope, project, component, environment)
            return streams.stream(self._changes(owner, where))

        @routes.get("/logs", responses=streams.RESPONSES)
        async def read_logs(
            *,
            scope: Scoped,
            project: ProjectName,
            component: ComponentName,
            environment: EnvironmentName,
            tail: Annotated[int, Query(ge=0, le=MAX_TAIL, description="Lines from the end.")] = 200,
            follow: Annotated[bool, Query(description="Go on with new lines.")] = False,
            since: Annotated[str | None, Query(max_length=40, description="Only lines after this moment.")] = None,
            instance: Annotated[str | None, Query(max_length=64)] = None,
        ) -> StreamingResponse:
            """Streams what the application writes: `line` events, then `end`. 503 without a link to the plane."""
            owner, where = await self._found(scope, project, component, environment)
            query = LogQuery(
                id=new_id("qry"),
                key=f"{owner.id}/{where.id}",
                tail=tail,
                follow=follow,
                since=since,
                instance=instance,
            )
            request = service.Request(scope.organization, owner, where, scope.caller.name, self._clock.now())
            async with self._database.reading() as tx:
                target = await service.get_target(tx, request)
            return streams.stream(_lines(self._links.logs(target.plane_id, query)))

        return routes

    async def _found(
        self, scope: Scope, project: str, component: str, environment: str
    ) -> tuple[Component, Environment]:
        async with self._database.reading() as tx:
            owner = await catalog.get_component(tx, scope.organization_id, project, component)
            return owner, await planes.get_environment(tx, scope.organization_id, environment)

    async def _changes(self, component: Component, where: Environment) -> AsyncIterator[ServerEvent]:
        shown: EnvironmentBody | None = None
        with self._bus.subscribe(service.CHANGED, service.REQUESTED, ACKNOWLEDGED) as events:
            while True:
                async with self._database.reading() as tx:
                    body = await queries.environment(tx, component, where, self._clock.now())
                if body != shown:
                    yield ServerEvent("environment", body)
                    shown = body
                await _news(events, component, where)


async def _news(events: AsyncIterator[Event], component: Component, where: Environment) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RECHECK_SECONDS):
            async for event in events:
                is_plane = event.subject == where.plane_id
                is_own = event.subject == component.id and event.data.get("environment_id") == where.id
                if is_plane or is_own:
                    return


async def _lines(lines: AsyncIterator[LogLine]) -> AsyncIterator[ServerEvent]:
    async for line in lines:
        yield ServerEvent("line", line)
    yield ServerEvent("end", {})
