"""Routes with their rules: authenticated first, one transaction a request, tried again after a lost race.

Slices make their routers with `router()` and take `Tx` where they need the
database: a reading transaction for GET, a writing one for everything else,
committed after the handler returned and before the answer is sent. A streamed
answer runs after it, so it never holds one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from sqlalchemy.exc import IntegrityError

from minuet.infra import database
from minuet.infra.database import Database, Transaction, TransactionConflict
from minuet.kernel.errors import Conflict
from minuet.web import auth, idempotency, openapi, problems, requests

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_READS = ("GET", "HEAD")
_USUAL_PROBLEMS = (400, 401, 403, 404, 409, 413, 415, 422, 429, 503)


def router(prefix: str = "", *, tags: Sequence[str]) -> APIRouter:
    """Returns a router whose routes ask for a bearer token and document their problems."""
    return APIRouter(
        prefix=prefix,
        tags=list(tags),
        route_class=ApiRoute,
        dependencies=[Security(auth.scheme)],
        responses=problems.responses(*_USUAL_PROBLEMS),
        generate_unique_id_function=openapi.operation_id,
    )


class Unit:
    """The unit of work of one attempt at one request; opens its transaction when first asked for it."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._stack = contextlib.AsyncExitStack()
        self._transaction: Transaction | None = None

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> bool | None:  # noqa: PYI036 - passed on as they come
        return await self._stack.__aexit__(*error)

    @property
    def transaction(self) -> Transaction | None:
        """The transaction, if one was asked for."""
        return self._transaction

    async def open(self) -> Transaction:
        if self._transaction is None:
            store: Database = self._request.app.state.database
            opening = store.reading() if self._request.method in _READS else store.transaction()
            self._transaction = await self._stack.enter_async_context(opening)
        return self._transaction


class ApiRoute(APIRoute):
    """Runs the handler in a unit of work; the answer of a create is remembered in the same transaction."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        if self.openapi_extra is None:
            is_replayed = "POST" in (self.methods or ()) and _takes_transaction(self.dependant)
            has_tag = self.dependant.response_param_name is not None
            self.openapi_extra = openapi.addition(self, is_replayed=is_replayed, has_tag=has_tag)

    def get_route_handler(self) -> Handler:
        handler = super().get_route_handler()
        known = requests.query_names(self)

        async def handle(request: Request) -> Response:
            await auth.authenticate(request)
            await requests.check(request, self, known)
            for attempt in range(1, database.ATTEMPTS + 1):
                try:
                    return await _attempt(request, handler)
                except (TransactionConflict, IntegrityError) as error:
                    # A name taken a moment ago also ends here; the next attempt sees it and says so properly.
                    if attempt == database.ATTEMPTS:
                        raise _lost(error) from error
                await asyncio.sleep(database.retry_delay(attempt))
            raise AssertionError("the last attempt returns or raises")

        return handle


def _takes_transaction(dependant: Dependant) -> bool:
    return dependant.call is _transaction or any(_takes_transaction(inner) for inner in dependant.dependencies)


async def _attempt(request: Request, handler: Handler) -> Response:
    async with Unit(request) as unit:
        request.state.unit = unit
        request.state.replay_key = None
        try:
            response = await handler(request)
        except idempotency.Replay as replay:
            return replay.response
        if unit.transaction is not None and request.state.replay_key is not None:
            await idempotency.remember(request, unit.transaction, response)
        return response


def _lost(error: Exception) -> Conflict:
    if isinstance(error, TransactionConflict):
        return error
    return Conflict("another change was made at the same time", code="TransactionConflict", hint="try again")


async def _transaction(request: Request) -> Transaction:
    unit: Unit = request.state.unit
    transaction = await unit.open()
    if request.method == "POST" and request.state.replay_key is None:
        await idempotency.replay(request, transaction)
    return transaction


def _database(request: Request) -> Database:
    store: Database = request.app.state.database
    return store


Tx = Annotated[Transaction, Depends(_transaction)]
"""The transaction of this request."""

Store = Annotated[Database, Depends(_database)]
"""The database itself, for routes that wait (long polls, streams) and must not hold a transaction meanwhile."""
