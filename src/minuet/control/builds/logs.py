"""Build logs on their way from the builder that keeps them to whoever reads them; nothing is stored here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2

from minuet.control.builds import service, store
from minuet.control.builds.model import Build, Builder, BuildStatus
from minuet.infra import http
from minuet.infra.database import Database
from minuet.infra.outbox import Bus
from minuet.kernel.errors import NotFound, Unavailable, invalid_field
from minuet.protocol.signing import Signer, issue_ticket
from minuet.web.streams import ServerEvent

MAX_LINE_BYTES = 64 * 1024
"""A line of the builder's answer; longer ones are dropped."""

RECHECK_SECONDS = 5.0
_OK = 200
_GONE = 404
_POSITION = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")
_LINE_FIELDS = ("time", "stream", "phase", "message", "dropped")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A line of a build's log: in which attempt, and the how manieth. Its form is the id of the line's event."""

    attempt: int
    line: int

    @property
    def id(self) -> str:
        return f"{self.attempt}-{self.line}"

    def following(self) -> Position:
        """The position of the next line."""
        return Position(self.attempt, self.line + 1)

    @classmethod
    def of(cls, text: str | None) -> Position | None:
        """Reads the id of an event; raises `Invalid` for what is no such id."""
        if text is None:
            return None
        found = _POSITION.fullmatch(text)
        if found is None:
            raise invalid_field("Last-Event-ID", "is not the id of a line", given=text)
        return cls(int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a reader asked for."""

    follow: bool
    since: str | None
    after: Position

    def wants(self, place: Position, line: dict[str, Any]) -> bool:
        return place > self.after and (self.since is None or str(line.get("time", "")) >= self.since)


class BuildLogs:
    """Opens logs at builders; one per server process."""

    def __init__(self, database: Database, bus: Bus, signer: Signer) -> None:
        self._database = database
        self._bus = bus
        self._signer = signer

    async def read(
        self, build: Build, *, follow: bool, since: str | None = None, after: Position | None = None
    ) -> AsyncIterator[ServerEvent]:
        """Returns the lines as events, `end` last; raises `Unavailable` now if the builder does not answer now.

        `since` leaves out lines of before that moment, `after` those that a reader had already.
        """
        follow = follow and not build.status.is_final
        first = await self._open(build, follow=follow) if build.builder_id is not None else None
        return self._events(build, first, _Wanted(follow, since, after or Position(0, 0)))

    async def _events(self, build: Build, opened: _Opened | None, wanted: _Wanted) -> AsyncIterator[ServerEvent]:
        follow = wanted.follow
        while True:
            if opened is not None:
                place = Position(build.attempts, 0)
                async with contextlib.aclosing(opened.lines()) as lines:
                    async for line in lines:
                        place = place.following()
                        if wanted.wants(place, line):
                            yield ServerEvent("line", line, place.id)
            if not follow:
                break
            seen, build = build.attempts, await self._advanced(build, opened is not None)
            if build.status is not BuildStatus.BUILDING or (opened is not None and build.attempts == seen):
                break
            opened = await self._open(build, follow=True)
        data = {"status": build.status.value, "reason": build.reason, "message": build.message}
        yield ServerEvent("end", data)

    async def _advanced(self, build: Build, was_read: bool) -> Build:
        """Waits until the build is final, or is worked on (again)."""
        with self._bus.subscribe(service.CHANGED, service.FINISHED, service.QUEUED) as events:
            while True:
                async with self._database.reading() as tx:
                    now = await store.by_id(tx, build.organization_id, build.id)
                if now is None:
                    raise NotFound(f"the build {build.name} is gone", code="BuildNotFound")
                is_new = now.status is BuildStatus.BUILDING and (not was_read or now.attempts > build.attempts)
                if now.status.is_final or is_new:
                    return now
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RECHECK_SECONDS):
                        await anext(events)

    async def _open(self, build: Build, *, follow: bool) -> _Opened | None:
        async with self._database.reading() as tx:
            builder = await store.builder(tx, build.builder_id or "")
        if builder is None:
            return None
        return await _connect(builder, issue_ticket(self._signer, build=build.id), build.id, follow=follow)


class _Opened:
    """An answer of the builder whose lines have not been read yet."""

    def __init__(self, client: httpx2.AsyncClient, response: httpx2.Response) -> None:
        self._client = client
        self._response = response

    async def lines(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yields what the builder sends until it ends; closes the connection."""
        try:
            async for text in self._response.aiter_lines():
                line = _parsed(text)
                if line is not None:
                    yield line
        except httpx2.HTTPError as error:
            raise _unavailable() from error
        finally:
            await self._response.aclose()
            await self._client.aclose()


async def _connect(builder: Builder, ticket: str, build_id: str, *, follow: bool) -> _Opened | None:
    client = http.client(fingerprint=builder.fingerprint, read_seconds=None if follow else http.READ_SECONDS)
    url = f"{builder.url.rstrip('/')}/builds/{build_id}/log"
    try:
        request = client.build_request(
            "GET", url, params={"follow": "1"} if follow else {}, headers={"Authorization": f"Bearer {ticket}"}
        )
        response = await client.send(request, stream=True)
    except httpx2.HTTPError as error:
        await client.aclose()
        raise _unavailable() from error
    if response.status_code == _OK:
        return _Opened(client, response)
    await response.aclose()
    await client.aclose()
    if response.status_code == _GONE:
        return None
    raise _unavailable()


def _parsed(text: str) -> dict[str, Any] | None:
    if not text or len(text) > MAX_LINE_BYTES:
        return None
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return {name: line[name] for name in _LINE_FIELDS if name in line} if isinstance(line, dict) else None


def _unavailable() -> Unavailable:
    return Unavailable(
        "the builder, which keeps the log, does not answer",
        code="BuilderUnavailable",
        hint="`minuet status` shows whether the builder runs",
    )
