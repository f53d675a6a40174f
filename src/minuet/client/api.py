"""Calls of the public API. Synchronous, because a command waits anyway; httpx2 is loaded with the first call."""

from __future__ import annotations

import hashlib
import json
import ssl
import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

from minuet.client.contexts import Context
from minuet.kernel.errors import (
    Conflict,
    Exhausted,
    Forbidden,
    Invalid,
    MinuetError,
    NotFound,
    NotReady,
    Unauthenticated,
    Unavailable,
    Violation,
)

_BASE = "/api/v1"
_SECONDS = 30.0
_ERROR = 400
_FAMILIES: dict[int, type[MinuetError]] = {
    400: Invalid,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    413: Invalid,
    422: Invalid,
    425: NotReady,
    429: Exhausted,
    503: Unavailable,
    507: Exhausted,
}
_RECONNECTS = 5

Json = dict[str, Any]


class Api:
    """One server, with one token."""

    def __init__(self, context: Context) -> None:
        import httpx2

        self.context = context
        self._httpx = httpx2
        self._client = httpx2.Client(
            base_url=context.server.rstrip("/"),
            headers={"Authorization": f"Bearer {context.token}"},
            timeout=_SECONDS,
            trust_env=False,
            verify=_trust(context),
        )

    def organization(self, *parts: str) -> str:
        """The path of something in the context's organization."""
        return path("organizations", self.context.organization, *parts)

    def get(self, place: str, **params: Any) -> Json:
        return self._call("GET", place, params=_given(params))

    def post(self, place: str, body: Json | None = None) -> Json:
        """Creates or asks; the idempotency key makes it safe that a lost answer is asked for again."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self._call("POST", place, json=body or {}, headers=headers, again=True)

    def patch(self, place: str, body: Json) -> Json:
        return self._call("PATCH", place, json=body)

    def delete(self, place: str, **params: Any) -> Json:
        return self._call("DELETE", place, params=_given(params))

    def pages(self, place: str, **params: Any) -> Iterator[Json]:
        """Every item of a list, page after page."""
        cursor: str | None = None
        while True:
            page = self.get(place, **params, limit=200, cursor=cursor)
            yield from page["items"]
            cursor = page.get("next")
            if not cursor:
                return

    def events(self, place: str, **params: Any) -> Iterator[tuple[str, Json]]:
        """Server-sent events until the server ends the stream; a broken one is resumed where it broke."""
        last: str | None = None
        failures = 0
        while True:
            try:
                for event, identifier, data in self._stream(place, params, last):
                    failures = 0
                    last = identifier or last
                    yield event, data
                    if event == "end":
                        return
                return
            except self._httpx.TransportError as error:
                failures += 1
                if failures > _RECONNECTS:
                    raise _away(self.context) from error
                time.sleep(0.2 * failures)

    def _stream(self, place: str, params: Json, last: str | None) -> Iterator[tuple[str, str | None, Json]]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        timeout = self._httpx.Timeout(_SECONDS, read=60.0)
        request: Json = {"params": _given(params), "headers": headers, "timeout": timeout}
        with self._client.stream("GET", _BASE + place, **request) as answer:
            if answer.status_code >= _ERROR:
                answer.read()
                raise _problem(answer.status_code, answer.content)
            event, identifier = "message", None
            for line in answer.iter_lines():
                if line.startswith("event:"):
                    event = line[6:].strip()
                elif line.startswith("id:"):
                    identifier = line[3:].strip()
                elif line.startswith("data:"):
                    yield event, identifier, json.loads(line[5:])
                elif not line:
                    event = "message"

    def _call(self, method: str, place: str, *, again: bool = False, **request: Any) -> Json:
        try:
            answer = self._client.request(method, _BASE + place, **request)
        except self._httpx.TransportError as error:
            if not again:
                raise _away(self.context) from error
            time.sleep(0.5)
            return self._call(method, place, **request)
        if answer.status_code >= _ERROR:
            raise _problem(answer.status_code, answer.content)
        document: Json = answer.json() if answer.content else {}
        return document


def path(*parts: str) -> str:
    """Joins the parts of a path, each quoted."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _given(params: Json) -> Json:
    shown = {True: "true", False: "false"}
    return {
        key: shown[value] if isinstance(value, bool) else value for key, value in params.items() if value is not None
    }


def _trust(context: Context) -> ssl.SSLContext | bool:
    """The usual authorities, or exactly the pinned certificate, which is fetched and compared first."""
    if context.fingerprint is None or not context.server.startswith("https:"):
        return True
    parts = urlsplit(context.server)
    try:
        pem = ssl.get_server_certificate((parts.hostname or "", parts.port or 443), timeout=10)
    except OSError as error:
        raise _away(context) from error
    shown = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    if shown != context.fingerprint.lower().replace(":", ""):
        raise Forbidden(
            "the server showed another certificate than the pinned one",
            code="WrongCertificate",
            hint=f"it is {shown}; sign in again if that is expected",
        )
    trust = ssl.create_default_context(cadata=pem)
    trust.check_hostname = False
    return trust


def _away(context: Context) -> Unavailable:
    return Unavailable(f"{context.server} does not answer", hint="is it running? `minuet up` starts it")


def _problem(status: int, content: bytes) -> MinuetError:
    try:
        body = json.loads(content)
    except ValueError:
        body = {}
    family = _FAMILIES.get(status, Unavailable)
    message = body.get("detail") or body.get("title") or f"the server answered with status {status}"
    violations = [
        Violation(
            str(item.get("field", "")),
            str(item.get("message", "")),
            item.get("given"),
            tuple(item.get("allowed") or ()),
        )
        for item in body.get("violations") or ()
    ]
    return family(str(message), code=body.get("code"), hint=body.get("hint"), violations=violations)
