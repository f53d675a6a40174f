"""What every request passes before any route: an id, bounds on its text, headers on its answer, one log line.

Plain ASGI, because a wrapper that buffers would hold back event streams.
"""

from __future__ import annotations

import re
import time
import uuid

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minuet.infra import telemetry
from minuet.kernel.errors import Invalid
from minuet.web import problems

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = ("/healthz", "/readyz")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_log = telemetry.logger(__name__)


class Edge:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, max_body: int) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        started = time.monotonic()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        with structlog.contextvars.bound_contextvars(request=request_id):
            try:
                await self._guarded(scope, receive, answer)
            finally:
                if scope["path"] not in _QUIET:
                    seconds = round(time.monotonic() - started, 4)
                    _log.info("request", method=scope["method"], path=scope["path"], status=status, seconds=seconds)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._refusal(scope)
        if error is not None:
            response = problems.respond(error, Request(scope), {"Connection": "close"})
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Invalid | None:
        # No name of ours holds a control character, and PostgreSQL refuses NUL in any text.
        if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
            return Invalid("the address holds a NUL character", code="MalformedRequest")
        # Bodies that do not announce their size are counted while they are read.
        length = Request(scope).headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_body:
            return Invalid(f"the body is larger than the {self._max_body} bytes allowed", code="BodyTooLarge")
        return None


def _request_id(scope: Scope) -> str:
    given = Request(scope).headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
