"""The builder's own HTTP: artifacts by digest, logs of builds, and the front door of hosted Git."""

from __future__ import annotations

import json
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from minuet.builders.git_http import GitFrontDoor
from minuet.builders.logs import follow
from minuet.builders.settings import BuilderSettings
from minuet.builders.store import Store
from minuet.kernel.errors import Forbidden, MinuetError, NotFound, Unauthenticated, Unavailable
from minuet.protocol import signing

SigningKey = Callable[[], str | None]
"""The control plane's key, once the builder has registered."""


class Doors:
    """The routes over one store and one directory of logs."""

    def __init__(self, settings: BuilderSettings, store: Store, git: GitFrontDoor, signing_key: SigningKey) -> None:
        self._settings = settings
        self._store = store
        self._git = git
        self._signing_key = signing_key

    def application(self) -> Starlette:
        git = "/git/{organization}/{project}.git/{rest:path}"
        return Starlette(
            routes=[
                Route("/healthz", self.health),
                Route("/artifacts/{digest}", self.artifact),
                Route("/builds/{build}/log", self.log),
                Route(git, self._git_door, methods=["GET", "POST"]),
            ],
            exception_handlers={MinuetError: _problem},
        )

    async def health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok", "registered": self._signing_key() is not None})

    async def artifact(self, request: Request) -> Response:
        """A manifest, or a layer of the manifest that the ticket names."""
        digest = request.path_params["digest"]
        claims = self._claims(request)
        named = claims.get("artifact", "")
        if digest != named and digest not in self._layers(named):
            raise Forbidden("the ticket is for another artifact", code="WrongTicket")
        path = self._store.path(digest)
        if not path.exists():
            raise NotFound(f"{digest} is not in this store")
        return FileResponse(path, media_type="application/octet-stream")

    async def log(self, request: Request) -> Response:
        """JSON lines; with `follow=1` until the build has ended."""
        build = request.path_params["build"]
        if self._claims(request).get("build") != build:
            raise Forbidden("the ticket is for another build", code="WrongTicket")
        if not build.replace("_", "").isalnum():
            raise NotFound("there is no such build")
        path = self._settings.logs / f"{build}.jsonl"
        wait = request.query_params.get("follow") in ("1", "true")
        lines = follow(path, path.with_suffix(".ended"), wait=wait)
        return StreamingResponse(lines, media_type="application/jsonl")

    async def _git_door(self, request: Request) -> Response:
        return await self._git(request)

    def _layers(self, manifest: str) -> set[str]:
        try:
            document = json.loads(self._store.path(manifest).read_bytes())
        except (OSError, ValueError, MinuetError):
            return set()
        return {layer["digest"] for layer in document.get("layers", ())} | {document.get("sbom", "")}

    def _claims(self, request: Request) -> dict[str, str]:
        kind, _, ticket = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not ticket:
            raise Unauthenticated("a ticket is needed")
        key = self._signing_key()
        if key is None:
            raise Unavailable("this builder has not registered with the control plane yet")
        return signing.read_ticket(key, ticket)


_STATUS: dict[type[MinuetError], int] = {Unauthenticated: 401, Forbidden: 403, NotFound: 404, Unavailable: 503}


async def _problem(_request: Request, error: Exception) -> Response:
    if not isinstance(error, MinuetError):
        raise error
    status = next((code for family, code in _STATUS.items() if isinstance(error, family)), 422)
    body = {"type": "about:blank", "status": status, "code": error.code, "detail": error.message}
    return JSONResponse(body, status, media_type="application/problem+json")
