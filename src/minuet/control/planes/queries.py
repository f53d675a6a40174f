"""Log queries on their way to an agent and back: bounded, cancellable, passed on without storing.

One `Reading` belongs to one reader. A reader slower than its application loses
the oldest lines and is told how many.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.websockets import WebSocketDisconnect

from minuet.kernel.errors import Exhausted, NotFound, Unavailable
from minuet.kernel.ids import new_id
from minuet.protocol.frames import CancelQuery, LogAnswer, LogLine, LogQuery

MAX_READINGS = 64
"""Log readers of one data plane at once."""

MAX_LINES = 2_000
"""Lines that wait for one reader."""

FIRST_ANSWER_SECONDS = 10.0
"""How long the agent may take for its first answer."""

Send = Callable[[LogQuery | CancelQuery], Awaitable[None]]


class Reading:
    """The lines of one query that were not read yet."""

    def __init__(self) -> None:
        self._lines: deque[LogLine] = deque()
        self._dropped = 0
        self._is_done = False
        self._error: Exception | None = None
        self._changed = asyncio.Event()
        self.is_answered = False

    def add(self, answer: LogAnswer) -> None:
        """Takes an answer of the agent; drops the oldest lines above the bound, and counts them."""
        self.is_answered = True
        self._lines.extend(answer.lines)
        while len(self._lines) > MAX_LINES:
            self._dropped += 1 + self._lines.popleft().dropped
        if answer.error is not None:
            self._error = NotFound(answer.error, code="LogsNotFound")
        self._is_done = self._is_done or answer.done or answer.error is not None
        self._changed.set()

    def fail(self, error: Exception) -> None:
        """Ends the reading with an error, after the lines that are there already."""
        self._error = self._error or error
        self._is_done = True
        self._changed.set()

    async def next(self) -> LogLine | None:
        """Returns the next line, or nothing at the end."""
        while not self._lines:
            if self._is_done:
                if self._error is not None:
                    raise self._error
                return None
            self._changed.clear()
            # Once the agent has answered, a quiet application may stay quiet for as long as it likes.
            limit = None if self.is_answered else FIRST_ANSWER_SECONDS
            try:
                async with asyncio.timeout(limit):
                    await self._changed.wait()
            except TimeoutError as error:
                raise Unavailable("the data plane does not answer the query", code="LogsUnavailable") from error
        line = self._lines.popleft()
        if self._dropped:
            line = line.model_copy(update={"dropped": line.dropped + self._dropped})
            self._dropped = 0
        return line


class Readings:
    """The open queries of one session."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._open: dict[str, Reading] = {}

    def __len__(self) -> int:
        return len(self._open)

    def answer(self, answer: LogAnswer) -> None:
        """Hands an answer to its reader; one that is gone is passed over."""
        reading = self._open.get(answer.id)
        if reading is not None:
            reading.add(answer)

    def fail(self, error: Exception) -> None:
        """Ends every reading, for a link that is down."""
        for reading in self._open.values():
            reading.fail(error)

    async def lines(self, query: LogQuery) -> AsyncIterator[LogLine]:
        """Asks, and yields until the end; whoever stops reading early cancels the query."""
        if len(self._open) >= MAX_READINGS:
            raise Exhausted("too many readers of logs on this data plane", hint="close one, or try again later")
        query = query.model_copy(update={"id": new_id("qry")})
        reading = self._open[query.id] = Reading()
        is_finished = False
        try:
            await self._send(query)
            while (line := await reading.next()) is not None:
                yield line
            is_finished = True
        finally:
            del self._open[query.id]
            if not is_finished:
                # The query went with the link, if that is down.
                with contextlib.suppress(WebSocketDisconnect):
                    await self._send(CancelQuery(id=query.id))
