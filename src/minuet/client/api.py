"""Calls of the public API. Synchronous, because a command waits anyway; httpx2 is loaded with the first call.

Used by the command line and by `minuet up`. Whatever goes wrong is one of the
kernel's errors: the server's problem documents keep their code, hint and
violations, and a server that does not answer is `Unavailable`.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from minuet.client import problems, trust
from minuet.client.contexts import Context
from minuet.client.events import NotAStream, ServerEvent, parse
from minuet.kernel.errors import MinuetError, Unauthenticated, Unavailable, invalid_field

_BASE = "/api/v1"
_SECONDS = 30.0
_SILENCE_SECONDS = 45.0
"""Silence after which a stream counts as broken: three of the server's heartbeats."""

_DRIFT_SECONDS = 1.0
_FIRST_FAILURES = 2
_REDIRECT, _ERROR = 300, 400
_AGAIN_SECONDS = 0.5
_PAUSES = (0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0, 3.0)
"""Pauses between attempts to resume a stream, in seconds: longer than a server needs to start again."""

Json = dict[str, Any]
Resume = Callable[[], Json]


class Api:
    """One server, with one token.

    `patience` in seconds is for callers that rather go without an answer than
    wait for it: each call may take that long, and none is asked again.
    """

    def __init__(self, context: Context, *, patience: float | None = None) -> None:
        import httpx2

        self.context = context
        self._httpx = httpx2
        self._asks_again = patience is None
        try:
            self._client = httpx2.Client(
                base_url=context.server.rstrip("/"),
                headers={"Authorization": f"Bearer {_printable(context.token)}"},
                timeout=_SECONDS if patience is None else patience,
                trust_env=False,
                verify=trust.of(context),
            )
        except httpx2.InvalidURL as error:
            raise invalid_field("server", f"is not an address: {error}", given=context.server) from error

    def close(self) -> None:
        """Closes its connections."""
        self._client.close()

    def organization(self, *parts: str) -> str:
        """The path of something in the context's organization."""
        return path("organizations", self.context.organization, *parts)

    def get(self, place: str, **params: Any) -> Json:
        return self._call("GET", place, params=_given(params))

    def tagged(self, place: str) -> tuple[Json, str | None]:
        """Something, and the ETag that a change of it is based on."""
        answer = self._answer("GET", place)
        return self._document(answer), answer.headers.get("etag")

    def post(self, place: str, body: Json | None = None, *, etag: str | None = None) -> Json:
        """Creates or asks; the idempotency key makes it safe that a lost answer is asked for again."""
        headers = {"Idempotency-Key": str(uuid.uuid4())} | ({"If-Match": etag} if etag else {})
        return self._call("POST", place, json=body or {}, headers=headers)

    def patch(self, place: str, body: Json, *, etag: str | None = None) -> Json:
        """Changes; with an `etag` only if it is still what it was when that was read."""
        return self._call("PATCH", place, json=body, headers={"If-Match": etag} if etag else {})

    def delete(self, place: str, **params: Any) -> Json:
        return self._call("DELETE", place, params=_given(params))

    def pages(self, place: str, **params: Any) -> Iterator[Json]:
        """Every item of a list, page after page."""
        cursor: str | None = None
        while True:
            page = self.get(place, **params, limit=200, cursor=cursor)
            if not isinstance(page.get("items"), list):
                raise problems.not_minuet(self.context, "a list has no items")
            yield from page["items"]
            cursor = page.get("next")
            if not cursor:
                return

    def events(
        self, place: str, *, deadline: float | None = None, resume: Resume | None = None, **params: Any
    ) -> Iterator[tuple[str, Json]]:
        """Server-sent events until the server ends the stream; a broken one is taken up again.

        `deadline` is a moment of `time.monotonic()` at which it simply ends, however
        silent it is; until then an early end counts as a break. With `resume`, only
        an `end` event ends it, and that function says how it goes on after a break.
        """
        last: str | None = None
        started, failures = False, 0
        while deadline is None or time.monotonic() < deadline:
            broken: MinuetError | None = None
            try:
                for event in self._stream(place, params, last, deadline):
                    started, failures, last = True, 0, event.id or last
                    yield event.name, event.data
                    if event.name == "end":
                        return
            except self._httpx.RequestError as error:
                broken = problems.from_transport(self.context, error)
            except Unavailable as error:
                if not started:
                    raise
                broken = error
            if broken is None and deadline is None and resume is None:
                return
            failures = _pause(failures, broken, started=started, deadline=deadline)
            params = params | (resume() if resume else {})

    def _stream(self, place: str, params: Json, last: str | None, deadline: float | None) -> Iterator[ServerEvent]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        silence = _SILENCE_SECONDS if deadline is None else min(_SILENCE_SECONDS, _left(deadline))
        timeout = self._httpx.Timeout(_SECONDS, read=max(0.1, silence))
        request: Json = {"params": _given(params), "headers": headers, "timeout": timeout}
        with self._client.stream("GET", _BASE + place, **request) as answer:
            if answer.status_code >= _REDIRECT:
                answer.read()
                self._document(answer)
            try:
                for event in parse(answer.iter_bytes()):
                    if event is None:
                        # The client's patience is fixed when it opens; close to the deadline it has to be shorter.
                        if deadline is not None and silence > _left(deadline) + _DRIFT_SECONDS:
                            return
                    elif event.name == "error":
                        raise problems.from_problem(event.data)
                    else:
                        yield event
            except NotAStream as error:
                raise problems.not_minuet(self.context, str(error)) from error

    def _call(self, method: str, place: str, **request: Any) -> Json:
        return self._document(self._answer(method, place, **request))

    def _answer(self, method: str, place: str, **request: Any) -> Any:
        try:
            return self._client.request(method, _BASE + place, **request)
        except self._httpx.RequestError as error:
            broken = problems.from_transport(self.context, error)
            is_there = not isinstance(error, self._httpx.ConnectError)
            is_safe = self._asks_again and (method == "POST" or (method == "GET" and is_there))
            if not isinstance(broken, Unavailable) or not is_safe:
                raise broken from error
        time.sleep(_AGAIN_SECONDS)
        try:
            return self._client.request(method, _BASE + place, **request)
        except self._httpx.RequestError as error:
            raise problems.from_transport(self.context, error) from error

    def _document(self, answer: Any) -> Json:
        """The JSON object of an answer; raises what it stands for if it is not a good one."""
        if answer.status_code >= _ERROR:
            raise problems.from_answer(answer.status_code, answer.content)
        if answer.status_code >= _REDIRECT:
            raise problems.not_minuet(self.context, f"it points to {answer.headers.get('location')}")
        if not answer.content:
            return {}
        try:
            document = answer.json()
        except ValueError as error:
            raise problems.not_minuet(self.context, "what it sent is not JSON") from error
        if not isinstance(document, dict):
            raise problems.not_minuet(self.context, "what it sent is not an object")
        return document


def path(*parts: str) -> str:
    """Joins the parts of a path, each quoted; raises `Invalid` for one that would mean another place."""
    for part in parts:
        if part in ("", ".", ".."):
            raise invalid_field("name", "is not a name", given=part)
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _pause(failures: int, broken: MinuetError | None, *, started: bool, deadline: float | None) -> int:
    """Waits before a stream is opened again and returns the number of failures; raises when there were enough."""
    if broken is not None:
        failures += 1
        patience = len(_PAUSES) if started else _FIRST_FAILURES
        if failures > patience or not isinstance(broken, Unavailable):
            raise broken
    pause = _PAUSES[max(0, failures - 1)] * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
    time.sleep(pause if deadline is None else max(0.0, min(pause, _left(deadline))))
    return failures


def _left(deadline: float) -> float:
    return deadline - time.monotonic()


def _given(params: Json) -> Json:
    shown = {True: "true", False: "false"}
    return {
        key: shown[value] if isinstance(value, bool) else value for key, value in params.items() if value is not None
    }


def _printable(token: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise Unauthenticated(
            "the token is empty or holds characters that no token has",
            hint="sign in again: `minuet login --server <address>`",
        )
    return token
