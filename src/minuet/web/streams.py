"""Server-sent events: ids to resume from, heartbeats, and an end when the reader goes away or may read no longer.

The reader's pace is the source's pace: nothing is queued here, a slow reader
holds back its own source, and sources drop and count on their side.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Header, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from minuet.infra import telemetry
from minuet.kernel.errors import Exhausted, MinuetError, Unavailable
from minuet.web import auth, problems
from minuet.web.models import Model
from minuet.web.problems import Problem

HEARTBEAT_SECONDS = 15.0
"""Silence after which a comment is sent, so that neither side nor a proxy believes the other gone."""

MAX_STREAMS = 1000
"""Streams open at once in one process; more are refused."""

MAX_STREAMS_OF_ONE = 200
"""Streams of one organization among them, so that it cannot keep all others out."""

LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", max_length=200, description="Resume after the event with this id."),
]

CHECK_SECONDS = 30.0
"""How long a stream may go on after its token was revoked or what it is about is gone."""

Check = Callable[[], Awaitable[object]]
"""Raises when the stream must end, with what is then told to its reader."""

_log = telemetry.logger(__name__)
_open: Counter[str] = Counter()


class EventStream(StreamingResponse):
    """The response class of streaming routes."""

    media_type = "text/event-stream"


class ErrorEvent(Model):
    """Ends a stream that cannot go on."""

    event: Literal["error"]
    data: Problem


def responses(events: Any) -> dict[int | str, dict[str, Any]]:
    """Returns what a streaming route documents: one of these events after another, each with name, id and data."""
    return {200: {"description": "Server-sent events, one of these after another", "model": events | ErrorEvent}}


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: its name, its data as JSON, and an id to resume from."""

    event: str
    data: Any
    id: str | None = None

    def encode(self) -> bytes:
        if isinstance(self.data, BaseModel):
            text = self.data.model_dump_json(by_alias=True)
        else:
            text = json.dumps(self.data, ensure_ascii=False)
        lines = [f"id: {_one_line(self.id)}"] if self.id is not None else []
        lines += [f"event: {_one_line(self.event)}", f"data: {text}"]
        return ("\n".join(lines) + "\n\n").encode()


def stream(request: Request, source: AsyncIterator[ServerEvent], *, owner: str, check: Check) -> EventStream:
    """Returns the response that sends a source to somebody of an organization (`owner`).

    The source is closed whatever ends it; while it is sent, the token of the request
    and `check` are looked at again and again. Raises `Exhausted` above the bounds.
    """
    if _open.total() >= MAX_STREAMS:
        raise Exhausted("too many streams are open", hint="try again later")
    if _open[owner] >= MAX_STREAMS_OF_ONE:
        raise Exhausted(f"the organization has {MAX_STREAMS_OF_ONE} streams open", hint="close one")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

    async def still_allowed() -> None:
        await auth.authenticate(request)
        await check()

    return EventStream(_body(source, owner, still_allowed), headers=headers)


async def _body(source: AsyncIterator[ServerEvent], owner: str, check: Check) -> AsyncIterator[bytes]:
    _open[owner] += 1
    checked = time.monotonic()
    following: asyncio.Future[ServerEvent] | None = None
    try:
        yield b": open\n\n"
        while True:
            following = following or asyncio.ensure_future(_next(source))
            await asyncio.wait({following}, timeout=HEARTBEAT_SECONDS)
            if time.monotonic() - checked >= CHECK_SECONDS:
                checked = time.monotonic()
                await _ask(check)
            if not following.done():
                yield b": heartbeat\n\n"
                continue
            event, following = following.result(), None
            yield event.encode()
    except _Ended:
        return
    except MinuetError as error:
        yield ServerEvent("error", problems.problem_of(error)).encode()
    except Exception as error:  # noqa: BLE001 - the status is sent already; the reader still learns that it ended badly
        _log.error("stream_failed", exc_info=error)
        yield ServerEvent("error", problems.problem_of(MinuetError("the server met an error of its own"))).encode()
    finally:
        _open[owner] -= 1
        if not _open[owner]:
            del _open[owner]
        await _close(source, following)


async def _ask(check: Check) -> None:
    try:
        await check()
    except Unavailable:
        # A database that is away for a moment ends nothing; the next round asks again.
        _log.warning("stream_not_checked")


class _Ended(Exception):
    """The source is empty; a future cannot carry StopAsyncIteration."""


async def _next(source: AsyncIterator[ServerEvent]) -> ServerEvent:
    try:
        return await anext(source)
    except StopAsyncIteration as end:
        raise _Ended from end


async def _close(source: AsyncIterator[ServerEvent], following: asyncio.Future[ServerEvent] | None) -> None:
    if following is not None:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await following
    closing = getattr(source, "aclose", None)
    if closing is not None:
        with contextlib.suppress(RuntimeError):
            await closing()


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\r", " ")
