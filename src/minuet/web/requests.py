"""What every request must be before its handler sees it: nothing in it is passed over in silence.

A query parameter that no route knows, a body where none is taken, or one that is
not JSON would otherwise be ignored or told in words that do not help.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from minuet.kernel.errors import Invalid, Violation
from minuet.kernel.names import nearest

JSON = "application/json"


def query_names(route: APIRoute) -> frozenset[str]:
    """Returns the query parameters that a route takes."""
    return frozenset(_query_names(route.dependant))


def _query_names(dependant: Dependant) -> Iterator[str]:
    for field in dependant.query_params:
        yield field.alias
    for inner in dependant.dependencies:
        yield from _query_names(inner)


async def check(request: Request, route: APIRoute, known: frozenset[str]) -> None:
    """Raises `Invalid` for what the route does not take."""
    _check_query(request, known)
    if route.body_field is None:
        await _check_absence(request)
    elif _has_body(request):
        _check_type(request)


def _check_query(request: Request, known: frozenset[str]) -> None:
    violations, hint = [], None
    for name, count in Counter(key for key, _ in request.query_params.multi_items()).items():
        if name not in known:
            close = nearest(name, known)
            hint = hint or (f"did you mean {close}?" if close else None)
            violations.append(Violation(name[:200], "is not a parameter of this route", allowed=tuple(sorted(known))))
        elif count > 1:
            violations.append(Violation(name, "is given more than once"))
    if violations:
        first = violations[0]
        raise Invalid(f"{first.field}: {first.message}", hint=hint, violations=violations)


async def _check_absence(request: Request) -> None:
    """A client that always sends an object may send an empty one."""
    if not _has_body(request):
        return
    if (await request.body()).strip() not in (b"", b"{}", b"null"):
        raise Invalid("this route takes no body", code="UnexpectedBody", hint="leave it out")


def _check_type(request: Request) -> None:
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != JSON:
        what = f"is of the type {given[:80]}" if given else "names no type"
        raise Invalid(f"the body {what}", code="UnsupportedMediaType", hint=f"send `Content-Type: {JSON}`")


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
