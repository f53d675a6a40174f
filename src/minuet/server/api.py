"""The HTTP application of a control plane: its routers, what runs beside them, and the anonymous routes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse

import minuet
from minuet.infra import telemetry
from minuet.kernel.errors import Unavailable
from minuet.server.wiring import ControlPlane
from minuet.web import docs, openapi, problems
from minuet.web.edge import Edge
from minuet.web.models import Model

RESTART_SECONDS = 1.0
"""How long a job that failed waits before it runs again."""

READY_SECONDS = 5.0
"""How long the database may take to answer before the server calls itself not ready."""

_log = telemetry.logger(__name__)


class Health(Model):
    """That it answers, and its version."""

    status: str
    version: str


def application(plane: ControlPlane) -> FastAPI:
    """Returns the application; its jobs run while it is served."""
    app = FastAPI(
        title="Minuet",
        version=minuet.__version__,
        lifespan=_lifespan(plane),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
    )
    app.state.database = plane.database
    app.state.vault = plane.vault
    app.state.authenticator = plane.authenticator
    problems.install(app)
    app.add_middleware(Edge, max_body=plane.settings.limits.body_bytes)
    _add_anonymous_routes(app, plane)
    for router in plane.routers:
        app.include_router(router, prefix="/api/v1", max_body_size=plane.settings.limits.body_bytes)
    return app


def _add_anonymous_routes(app: FastAPI, plane: ControlPlane) -> None:
    @app.get("/healthz", tags=["health"])
    async def get_health() -> Health:
        """Answers as long as the process does."""
        return Health(status="ok", version=minuet.__version__)

    @app.get("/readyz", tags=["health"], responses=problems.responses(503))
    async def get_readiness() -> Health:
        """Answers when requests can be served: the database is there."""
        try:
            async with asyncio.timeout(READY_SECONDS), plane.database.reading() as tx:
                await tx.execute(sa.text("select 1"))
        except TimeoutError as error:
            raise Unavailable("the database does not answer") from error
        return Health(status="ready", version=minuet.__version__)

    @app.get("/api/v1/openapi.json", include_in_schema=False)
    async def get_openapi_document(request: Request) -> JSONResponse:
        return JSONResponse(openapi.document(request.app))

    @app.get("/docs", include_in_schema=False)
    async def get_docs(request: Request) -> HTMLResponse:
        return docs.page(request.app)


def _lifespan(plane: ControlPlane) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await plane.bus.start()
        tasks = [asyncio.create_task(_keep_running(name, job), name=name) for name, job in plane.jobs]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return lifespan


async def _keep_running(name: str, job: Callable[[], Awaitable[Any]]) -> None:
    """A job that fails is a defect: it is logged, and run again, because the others need it."""
    while True:
        try:
            await job()
        except Exception as error:  # noqa: BLE001 - whatever it was, the server goes on
            _log.error("job_failed", job=name, exc_info=error)
        await asyncio.sleep(RESTART_SECONDS)
