"""Server-sent events: ids to resume from, heartbeats, and an end when the reader goes away.

The reader's pace is the source's pace: nothing is queued here, a slow reader
holds back its own source, and sources drop and count on their side.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from minuet.infra import telemetry
from minuet.kernel.errors import Exhausted, MinuetError
from minuet.web import problems

HEARTBEAT_SECONDS = 15.0
"""Silence after which a comment is sent, so that neither side nor a proxy believes the other gone."""

MAX_STREAMS = 1000
"""Streams open at once in one process; more are refused."""

LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", max_length=200, description="Resume after the event with this id."),
]

RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-sent events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
}
"""What a streaming route documents."""

_log = telemetry.logger(__name__)
_open: set[object] = set()


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


def stream(source: AsyncIterator[ServerEvent]) -> StreamingResponse:
    """Returns the response that sends a source; the source is closed whatever ends it."""
    if len(_open) >= MAX_STREAMS:
        raise Exhausted("too many streams are open", hint="try again later")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_body(source), media_type="text/event-stream", headers=headers)


async def _body(source: AsyncIterator[ServerEvent]) -> AsyncIterator[bytes]:
    mark = object()
    _open.add(mark)
    following: asyncio.Future[ServerEvent] | None = None
    try:
        yield b": open\n\n"
        while True:
            following = following or asyncio.ensure_future(_next(source))
            await asyncio.wait({following}, timeout=HEARTBEAT_SECONDS)
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
        _open.discard(mark)
        await _close(source, following)


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
