"""One agent's connection: greeting, pushing desired state, taking reports, until either side goes.

The frames are those of `protocol.frames`. Three things run side by side: a
reader, a pusher that wakes when the log grows, and WebSocket pings of the
server, which end a half-open connection (`server.main` sets their times).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from minuet import protocol
from minuet.control.planes.link import Links
from minuet.control.planes.log import Position
from minuet.control.planes.queries import Readings
from minuet.infra import telemetry
from minuet.kernel.errors import Conflict, MinuetError, Unavailable
from minuet.kernel.retry import Backoff
from minuet.protocol import sealing
from minuet.protocol.base import Document
from minuet.protocol.frames import (
    Acknowledge,
    Desired,
    Frame,
    Hello,
    LogAnswer,
    LogLine,
    LogQuery,
    Observed,
    Welcome,
    parse_frame,
)

HELLO_SECONDS = 10.0
"""How long an agent may take to introduce itself."""

WINDOW = 8
"""Revisions on their way that were not acknowledged yet; more wait, so that a slow agent is not flooded."""

STALL_SECONDS = 30.0
"""How long an unacknowledged window is waited for before the session is given up."""

REPEAT = Backoff(base=1.0, cap=30.0)
"""How long a refused revision waits to be sent again, as a whole: the disk of the data plane may have room by then."""

MAX_UNREADABLE = 20
"""Frames of one session that may be unreadable, as those of a newer agent may be, before it is ended."""

CLOSE_BAD_FRAME = 4400
CLOSE_NO_HELLO = 4408
CLOSE_SUPERSEDED = 4409
CLOSE_VERSION = 4426
CLOSE_TRY_LATER = 1013
CLOSE_LOST = 1006

_log = telemetry.logger(__name__)


class _Closed(Exception):
    """Our side ends the session, with a code that tells the agent why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Session:
    """One session; `number` fences the older ones of its plane."""

    def __init__(self, socket: WebSocket, links: Links, plane_id: str, number: int, held: Position) -> None:
        self.plane_id = plane_id
        self.number = number
        self._socket = socket
        self._links = links
        self._sent = held
        self._held = held
        self._refusals = 0
        self._must_repeat = False
        self._sequence = -1
        self._unreadable = 0
        self._news = asyncio.Event()
        self._moved = asyncio.Event()
        self._superseded = asyncio.Event()
        self._sending = asyncio.Lock()
        self._readings = Readings(self.send)

    def wake(self) -> None:
        self._news.set()

    def supersede(self) -> None:
        self._superseded.set()

    def read_logs(self, query: LogQuery) -> AsyncIterator[LogLine]:
        return self._readings.lines(query)

    async def run(self) -> None:
        """Carries the session until it ends."""
        jobs = [asyncio.create_task(job) for job in (self._read(), self._push(), self._watch())]
        try:
            done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            for job in done:
                job.result()
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
            self._readings.fail(Unavailable("the link to the data plane went down", code="DataPlaneNotConnected"))

    async def _watch(self) -> None:
        await self._superseded.wait()
        raise _Closed(CLOSE_SUPERSEDED, "superseded by a newer session")

    async def _read(self) -> None:
        while True:
            text = await self._socket.receive_text()
            try:
                frame = parse_frame(text)
            except ValidationError:
                self._count_unreadable(text)
                continue
            await self._take(frame)

    def _count_unreadable(self, text: str) -> None:
        self._unreadable += 1
        _log.warning("unreadable_frame", plane=self.plane_id, start=text[:80])
        if self._unreadable > MAX_UNREADABLE:
            raise _Closed(CLOSE_BAD_FRAME, "too many unreadable frames")

    async def _take(self, frame: Frame) -> None:
        if isinstance(frame, Observed):
            await self._take_observed(frame)
        elif isinstance(frame, Acknowledge):
            await self._take_acknowledge(frame)
        elif isinstance(frame, LogAnswer):
            self._readings.answer(frame)
        else:
            self._count_unreadable(frame.frame)

    async def _take_observed(self, frame: Observed) -> None:
        if frame.sequence <= self._sequence:
            return
        await self._links.observe(self, frame.workloads, frame.report, full=frame.full)
        self._sequence = frame.sequence

    async def _take_acknowledge(self, frame: Acknowledge) -> None:
        position = Position(frame.epoch, frame.revision)
        if (position.epoch, position.revision) > (self._sent.epoch, self._sent.revision):
            raise _Closed(CLOSE_BAD_FRAME, "acknowledged a revision that was not sent")
        await self._links.acknowledge(self, frame)
        if frame.refused is None:
            self._held, self._refusals = position, 0
        elif not self._must_repeat:
            # The revisions that were on their way behind a refused one are refused, too: one answer is enough.
            self._refusals += 1
            self._must_repeat = True
            self._news.set()
        self._moved.set()

    async def _push(self) -> None:
        while True:
            self._news.clear()
            if self._must_repeat:
                await self._wait_to_repeat()
            # Asked before the reading: what is refused during it has to be repeated after this.
            whole, self._must_repeat = self._must_repeat, False
            async with self._links.database.reading() as tx:
                found = await self._links.desired.following(tx, self.plane_id, self._sent, whole=whole)
            for position, signed in found:
                await self._wait_for_window()
                if self._must_repeat:
                    break
                await self.send(Desired(signed=signed))
                self._sent = position
            if not found:
                await self._news.wait()

    async def _wait_to_repeat(self) -> None:
        """Until it is time, or the log has grown by what may be readable."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPEAT.delay(self._refusals)):
                await self._news.wait()

    async def _wait_for_window(self) -> None:
        while self._is_window_full():
            self._moved.clear()
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await self._moved.wait()
            except TimeoutError:
                raise _Closed(CLOSE_TRY_LATER, "revisions were not acknowledged in time") from None

    def _is_window_full(self) -> bool:
        if self._must_repeat or self._held.epoch != self._sent.epoch:
            return False
        return self._sent.revision - self._held.revision >= WINDOW

    async def send(self, frame: Document) -> None:
        """Sends a frame, unless the connection is closed already."""
        if self._socket.application_state is WebSocketState.CONNECTED:
            async with self._sending:
                await self._send_text(frame.wire())

    async def _send_text(self, text: str) -> None:
        try:
            await self._socket.send_text(text)
        except (RuntimeError, OSError):
            # The server tells a connection that went away meanwhile in several ways.
            raise WebSocketDisconnect(CLOSE_LOST) from None


async def serve(socket: WebSocket, links: Links, plane_id: str, plane: str) -> None:
    """Carries an authenticated agent's connection from its greeting to its end."""
    await socket.accept()
    session: Session | None = None
    try:
        hello = await _greeting(socket, plane)
        number, held = await links.admit(plane_id, hello)
        session = Session(socket, links, plane_id, number, held)
        await session.send(Welcome(session=number, signing_key=links.desired.public_key))
        links.register(session)
        await session.run()
    except _Closed as end:
        await _close(socket, end.code, end.reason)
    except Conflict as error:
        await _close(socket, CLOSE_SUPERSEDED, error.message)
    except MinuetError as error:
        await _close(socket, CLOSE_TRY_LATER, error.message)
    except WebSocketDisconnect:
        pass
    finally:
        if session is not None:
            await asyncio.shield(_leave(links, session))


async def _greeting(socket: WebSocket, plane: str) -> Hello:
    try:
        text = await asyncio.wait_for(socket.receive_text(), HELLO_SECONDS)
        frame = parse_frame(text)
    except TimeoutError:
        raise _Closed(CLOSE_NO_HELLO, "no greeting") from None
    except ValidationError:
        raise _Closed(CLOSE_BAD_FRAME, "the greeting is unreadable") from None
    if not isinstance(frame, Hello):
        raise _Closed(CLOSE_BAD_FRAME, "the first frame is not a greeting")
    if frame.version not in (protocol.VERSION, protocol.VERSION - 1):
        raise _Closed(CLOSE_VERSION, f"this server speaks version {protocol.VERSION}, the agent {frame.version}")
    if frame.plane != plane:
        raise _Closed(CLOSE_BAD_FRAME, "the greeting names another data plane")
    if not sealing.is_sealing_key(frame.sealing_key):
        raise _Closed(CLOSE_BAD_FRAME, "the sealing key in the greeting is not one")
    return frame


async def _leave(links: Links, session: Session) -> None:
    try:
        await links.leave(session)
    except MinuetError as error:
        # The row says "connected" until it is too old to be believed (`model.LOST_AFTER`).
        _log.warning("leave_not_recorded", plane=session.plane_id, error=error.message)


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):
        await socket.close(code, reason[:120])
