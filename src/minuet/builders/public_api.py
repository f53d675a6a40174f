"""The public API as a pusher's own client sees it: with the pusher's token, nothing of the builder's rights."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2

from minuet.infra import http
from minuet.kernel.errors import Forbidden, Invalid, NotFound, Unauthenticated, Unavailable
from minuet.kernel.ids import new_id
from minuet.kernel.retry import Backoff

_ERROR = 400
_ATTEMPTS = 6
_SILENCE_SECONDS = 60.0


class PublicApi:
    """Asks the control plane on behalf of one token."""

    def __init__(self, server: str, fingerprint: str | None, token: str) -> None:
        self._server = server.rstrip("/")
        self._fingerprint = fingerprint
        self._headers = {"Authorization": f"Bearer {token}"}

    async def get(self, path: str) -> dict[str, Any]:
        """Raises `Unauthenticated`, `Forbidden`, `NotFound`, and `Unavailable` after a few attempts."""
        return await self._persist("GET", path, None, self._headers)

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The same for what is made once, however often it is asked for."""
        return await self._persist("POST", path, body, self._headers | {"Idempotency-Key": new_id("idk")})

    async def until(self, path: str, events: str, settled: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Follows a resource by its stream of events until it is as wanted; a stream that breaks is taken up again."""
        attempt = 0
        while True:
            answer = await self.get(path)
            if settled(answer):
                return answer
            async for _, data in self.events(events):
                attempt = 0
                if settled(data):
                    return data
            attempt += 1
            await asyncio.sleep(Backoff(base=0.2, cap=5.0).delay(attempt))

    async def events(self, path: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Server-sent events until their end; a stream that breaks simply ends."""
        headers = self._headers | {"Accept": "text/event-stream"}
        try:
            async with (
                http.client(fingerprint=self._fingerprint, read_seconds=_SILENCE_SECONDS) as client,
                client.stream("GET", f"{self._server}/api/v1{path}", headers=headers) as answer,
            ):
                event = "message"
                async for line in answer.aiter_lines():
                    if line.startswith("event:"):
                        event = line[6:].strip()
                    elif line.startswith("data:"):
                        yield event, json.loads(line[5:])
                    if event == "end":
                        return
        except (httpx2.HTTPError, OSError, ValueError):
            return

    async def _persist(self, method: str, path: str, body: Any, headers: dict[str, str]) -> dict[str, Any]:
        for attempt in range(1, _ATTEMPTS):
            try:
                return await self._call(method, path, body, headers)
            except Unavailable:
                await asyncio.sleep(Backoff(base=0.2, cap=3.0).delay(attempt))
        return await self._call(method, path, body, headers)

    async def _call(self, method: str, path: str, body: Any, headers: dict[str, str]) -> dict[str, Any]:
        try:
            async with http.client(fingerprint=self._fingerprint) as client:
                answer = await client.request(method, f"{self._server}/api/v1{path}", headers=headers, json=body)
        except (httpx2.HTTPError, OSError) as error:
            raise Unavailable("the control plane does not answer", hint="try again in a moment") from error
        if answer.status_code >= _ERROR:
            raise _refusal(answer.status_code, answer.content)
        document: dict[str, Any] = answer.json() if answer.content else {}
        return document


def _refusal(status: int, content: bytes) -> Exception:
    try:
        message = str(json.loads(content).get("detail") or "refused")
    except (ValueError, AttributeError):
        message = "refused"
    families = {401: Unauthenticated, 403: Forbidden, 404: NotFound}
    return families.get(status, Unavailable if status >= 500 or status == 429 else Invalid)(message)  # noqa: PLR2004
