"""The only table from error families to HTTP statuses, and the handlers that use it.

Whatever goes wrong leaves as `application/problem+json` (RFC 9457) with a stable
code, a hint and the fields that are wrong; never with a traceback.
"""

from __future__ import annotations

import http
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from starlette.exceptions import HTTPException

from minuet.infra import telemetry
from minuet.kernel import errors
from minuet.kernel.errors import MinuetError, Violation
from minuet.kernel.names import nearest
from minuet.web.models import Model

STATUS: dict[type[MinuetError], int] = {
    errors.Invalid: 422,
    errors.NotFound: 404,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.Conflict: 409,
    errors.NotReady: 409,
    errors.Unavailable: 503,
    errors.Exhausted: 429,
}

STATUS_OF_CODE = {
    "PreconditionFailed": 412,
    "MalformedRequest": 400,
    "BodyTooLarge": 413,
    "MethodNotAllowed": 405,
    "NotAcceptable": 406,
    "UnsupportedMediaType": 415,
}
"""Codes for which HTTP has a word of its own, more exact than their family's."""

_FAMILY_OF_STATUS: dict[int, tuple[type[MinuetError], str]] = {
    400: (errors.Invalid, "MalformedRequest"),
    401: (errors.Unauthenticated, "Unauthenticated"),
    403: (errors.Forbidden, "Forbidden"),
    404: (errors.NotFound, "RouteNotFound"),
    405: (errors.Invalid, "MethodNotAllowed"),
    406: (errors.Invalid, "NotAcceptable"),
    413: (errors.Invalid, "BodyTooLarge"),
    415: (errors.Invalid, "UnsupportedMediaType"),
}

RETRY_SECONDS = 2
"""What `Retry-After` says where trying again may help."""

MEDIA_TYPE = "application/problem+json"

_log = telemetry.logger(__name__)


class ViolationBody(Model):
    """One field that is wrong."""

    field: str
    message: str
    given: str | None = None
    allowed: list[str] = Field(default_factory=list)


class Problem(Model):
    """What went wrong: `code` is stable, `hint` says what to do next, `family` what kind of error it is."""

    type: str
    title: str
    status: int
    code: str
    family: str
    detail: str
    hint: str | None = None
    instance: str | None = None
    violations: list[ViolationBody] = Field(default_factory=list)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the problem responses of a route for its OpenAPI document."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": http.HTTPStatus(status).phrase, "content": content} for status in statuses}


def status_of(error: MinuetError) -> int:
    """Returns the HTTP status of an error."""
    if error.code in STATUS_OF_CODE:
        return STATUS_OF_CODE[error.code]
    return next((STATUS[family] for family in type(error).__mro__ if family in STATUS), 500)


def family_of(error: MinuetError) -> str:
    """Returns the name of the family an error belongs to."""
    return next((family.__name__ for family in type(error).__mro__ if family in STATUS), "Internal")


def problem_of(error: MinuetError, instance: str | None = None) -> Problem:
    """Returns the document that is sent for an error."""
    status = status_of(error)
    return Problem(
        type=f"urn:minuet:problem:{error.code}",
        title=http.HTTPStatus(status).phrase,
        status=status,
        code=error.code,
        family=family_of(error),
        detail=error.message,
        hint=error.hint,
        instance=instance,
        violations=[
            ViolationBody(field=item.field, message=item.message, given=item.given, allowed=list(item.allowed))
            for item in error.violations
        ],
    )


def respond(error: MinuetError, request: Request, headers: dict[str, str] | None = None) -> Response:
    """Returns the response for an error, with the headers its status asks for."""
    problem = problem_of(error, request.url.path)
    sent = dict(headers or {})
    if problem.status == http.HTTPStatus.UNAUTHORIZED:
        sent.setdefault("WWW-Authenticate", 'Bearer realm="minuet"')
    if problem.status in (http.HTTPStatus.SERVICE_UNAVAILABLE, http.HTTPStatus.TOO_MANY_REQUESTS):
        sent.setdefault("Retry-After", str(RETRY_SECONDS))
    body = problem.model_dump(by_alias=True, exclude_none=True)
    return JSONResponse(body, problem.status, sent, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Makes every error of the application leave as a problem."""

    async def of_family(request: Request, error: MinuetError) -> Response:
        return respond(error, request)

    async def of_validation(request: Request, error: RequestValidationError) -> Response:
        return respond(_from_validation(error.errors()), request)

    async def of_http(request: Request, error: HTTPException) -> Response:
        return respond(_from_http(request, error), request, dict(error.headers or {}))

    async def of_defect(request: Request, error: Exception) -> Response:
        _log.error("request_failed", method=request.method, path=request.url.path, exc_info=error)
        defect = MinuetError("the server met an error of its own; it is in its log", hint="please report it")
        return respond(defect, request)

    app.add_exception_handler(MinuetError, of_family)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, of_validation)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, of_http)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, of_defect)


def _from_validation(found: Sequence[Any]) -> MinuetError:
    violations = [_violation(item) for item in found]
    hints = [hint for item in found if (hint := _hint(item))]
    first = violations[0]
    malformed = any(item["type"] == "json_invalid" for item in found)
    return errors.Invalid(
        f"{first.field}: {first.message}" if first.field else first.message,
        code="MalformedRequest" if malformed else None,
        hint=hints[0] if hints else None,
        violations=violations,
    )


_PLACES = ("body", "query", "path", "header")
_WHOLE = frozenset({"json_invalid", "model_type", "model_attributes_type", "dict_type", "list_type"})


def _violation(item: Any) -> Violation:
    """A pydantic error as a violation: the place without `body`, what was given, what is allowed."""
    # Only the first part says where in the request it stood; a field may have such a name itself.
    first, *rest = item["loc"] or ("",)
    place = ".".join(str(part) for part in (rest if first in _PLACES else (first, *rest)))
    context = item.get("ctx") or {}
    allowed = context.get("known") or _expected(context.get("expected"))
    given = item.get("input")
    # The whole body, or a text where an object or a list belongs, may hold anything, secrets too.
    is_shown = place and isinstance(given, (str, int, float)) and item["type"] not in _WHOLE
    shown = _printable(given) if is_shown else None
    return Violation(_printable(place), _message(item), shown, tuple(allowed))


def _printable(value: object) -> str:
    """A lone surrogate in somebody's JSON must not break the answer that refuses it."""
    return str(value)[:200].encode("utf-8", "replace").decode()


def _message(item: Any) -> str:
    message: str = item["msg"]
    return message.removeprefix("Value error, ")


def _expected(text: Any) -> tuple[str, ...]:
    """The words in pydantic's `'a', 'b' or 'c'`."""
    return tuple(str(text).split("'")[1::2]) if isinstance(text, str) else ()


def _hint(item: Any) -> str | None:
    context = item.get("ctx") or {}
    close = context.get("nearest") or nearest(str(item.get("input")), _expected(context.get("expected")))
    return f"did you mean {close}?" if close else None


def _from_http(request: Request, error: HTTPException) -> MinuetError:
    family, code = _FAMILY_OF_STATUS.get(error.status_code, (errors.Invalid, "MalformedRequest"))
    details = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.method} is not possible at {request.url.path}",
        413: "the body of the request is larger than allowed",
    }
    hint = "GET /docs lists every route" if error.status_code in (404, 405) else None
    return family(details.get(error.status_code, str(error.detail)), code=code, hint=hint)
