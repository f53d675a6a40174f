"""Routes that only builders call: registration, leases, progress, results; and what they offer, for everybody."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from minuet.control.builds import leases, service, store
from minuet.control.builds.model import LEASE_SECONDS, Builder
from minuet.control.identity.api import CurrentCaller, Scoped
from minuet.control.identity.model import Caller, Role
from minuet.infra.database import Database, Transaction
from minuet.infra.events import Event
from minuet.infra.outbox import Bus
from minuet.infra.vault import Vault
from minuet.kernel.clock import Clock
from minuet.protocol.building import (
    Belongings,
    BuildOrder,
    BuildpackOffer,
    BuildResult,
    Progress,
    ProgressAnswer,
    Registered,
    Registration,
)
from minuet.protocol.signing import Signer
from minuet.web import routing
from minuet.web.models import Listing, Model, Timestamp
from minuet.web.paging import Paging
from minuet.web.routing import Store, Tx

POLL_SECONDS = 25.0
"""How long a request for work waits before it is answered with 204; below what proxies call idle."""

LOOK_SECONDS = 1.0
"""How often a waiting request looks whether its builder is still there."""


def _builder(caller: CurrentCaller) -> Caller:
    caller.must_be(Role.BUILDER)
    return caller


BuilderCaller = Annotated[Caller, Depends(_builder)]
"""A builder, known by its credential."""

Take = Callable[[Transaction], Awaitable[BuildOrder | None]]


class BuilderBody(Model):
    """A builder of the platform; `connected` means that it was heard of within the last minute."""

    id: str
    name: str
    version: str
    isolation: str
    connected: bool
    seen_at: Timestamp
    registered_at: Timestamp


LeaseId = Annotated[str, Path(max_length=40)]


def router(clock: Clock, bus: Bus, vault: Vault, signer: Signer) -> APIRouter:
    """Returns the routes of this file, below `/api/v1`."""
    routes = APIRouter()
    routes.include_router(_work(clock, bus, vault, signer))
    routes.include_router(_offers(clock))
    return routes


def _work(clock: Clock, bus: Bus, vault: Vault, signer: Signer) -> APIRouter:
    routes = routing.router("/builder", tags=["builder"])

    @routes.post("/registration")
    async def register_builder(caller: BuilderCaller, body: Registration, tx: Tx) -> Registered:
        """Says who the builder is since its start; builds of its earlier incarnation are queued again."""
        await leases.register(tx, caller.token_id, caller.name, body, clock.now())
        return Registered(signing_key=signer.public_key, lease_seconds=LEASE_SECONDS)

    @routes.post("/leases", responses={204: {"description": "Nothing to build for now"}}, response_model=BuildOrder)
    async def take_lease(request: Request, caller: BuilderCaller, database: Store) -> BuildOrder | Response:
        """Waits for something to build, up to 25 s; 204 means ask again."""

        async def take(tx: Transaction) -> BuildOrder | None:
            return await leases.take(tx, caller.token_id, vault, clock.now())

        order = await _wait_for_work(request, database, bus, clock, take)
        return Response(status_code=204) if order is None else order

    @routes.post("/leases/{lease}/progress")
    async def report_progress(caller: BuilderCaller, lease: LeaseId, body: Progress, tx: Tx) -> ProgressAnswer:
        """Renews a lease and says where the build stands; 409 `LeaseLost` when somebody else has it."""
        return ProgressAnswer(cancelled=await leases.progress(tx, caller.token_id, lease, body, clock.now()))

    @routes.post("/leases/{lease}/result", status_code=204)
    async def complete_build(caller: BuilderCaller, lease: LeaseId, body: BuildResult, tx: Tx) -> None:
        """Hands in the end of a build; repeating it changes nothing."""
        await leases.complete(tx, caller.token_id, lease, body, clock.now())

    @routes.post("/held")
    async def keep_held(_caller: BuilderCaller, body: Belongings, tx: Tx) -> Belongings:
        """Tells which of a builder's builds and projects still exist, so that it can let go of the rest."""
        return await leases.held(tx, body)

    return routes


def _offers(clock: Clock) -> APIRouter:
    routes = routing.router("/organizations/{organization}", tags=["builds"])

    @routes.get("/buildpacks")
    async def list_buildpacks(_scope: Scoped, tx: Tx) -> Listing[BuildpackOffer]:
        """Lists what the builders that are connected can build. It is one page always."""
        return Listing(items=list(await service.offers(tx, clock.now())))

    @routes.get("/builders")
    async def list_builders(_scope: Scoped, page: Paging, tx: Tx) -> Listing[BuilderBody]:
        """Lists the platform's builders, and whether they are there."""
        rows = await store.builders_after(tx, page.after, page.fetch)
        shown, following = page.cut(rows, lambda builder: builder.id)
        return Listing(items=[_builder_body(builder, clock.now()) for builder in shown], next=following)

    return routes


def _builder_body(builder: Builder, now: datetime.datetime) -> BuilderBody:
    return BuilderBody(
        id=builder.id,
        name=builder.name,
        version=builder.version,
        isolation=builder.isolation,
        connected=builder.is_alive(now),
        seen_at=builder.seen_at,
        registered_at=builder.registered_at,
    )


async def _wait_for_work(request: Request, database: Database, bus: Bus, clock: Clock, take: Take) -> BuildOrder | None:
    deadline = clock.monotonic() + POLL_SECONDS
    with bus.subscribe(service.QUEUED) as events:
        while not await request.is_disconnected():
            order = await database.run(take)
            if order is not None or not await _queued(events, request, deadline, clock):
                return order
    return None


async def _queued(events: AsyncIterator[Event], request: Request, deadline: float, clock: Clock) -> bool:
    """Waits for a build to be queued; returns false when the time is over or the builder has gone."""
    while (left := deadline - clock.monotonic()) > 0 and not await request.is_disconnected():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(left, LOOK_SECONDS)):
                await anext(events)
            return True
    return False
