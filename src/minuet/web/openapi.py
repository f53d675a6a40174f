"""The OpenAPI 3.1 document: FastAPI's own, completed with what every route may answer.

A client is generated from it, so operation ids are readable, problems have one
schema, and nothing is left undocumented.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from minuet.web.problems import Problem

_TEMPLATE = "#/components/schemas/{model}"
_DROPPED = ("HTTPValidationError", "ValidationError")
_NOTES = (
    "Everything but `/healthz`, `/readyz`, this document and `/docs` needs a bearer token. Errors are "
    "`application/problem+json`. Lists are paged by `limit` and `cursor`. Creates may be repeated with the same "
    "`Idempotency-Key`; changes may demand an `ETag` by `If-Match`. A method that a path "
    "does not have is answered with 405 and the header `Allow`."
)


def operation_id(route: APIRoute) -> str:
    """Returns the handler's name in camelCase: `create_token` becomes `createToken`."""
    head, *tail = route.name.split("_")
    return head + "".join(word.capitalize() for word in tail)


def addition(route: APIRoute, *, is_replayed: bool, has_tag: bool) -> dict[str, Any]:
    """Returns what is to be added to FastAPI's own description of a route.

    `is_replayed` says that repeating it gives the first answer, `has_tag` that its answer has an `ETag`.
    """
    headers: dict[str, Any] = {}
    if is_replayed:
        headers["Idempotent-Replayed"] = _REPLAYED
    if has_tag:
        headers["ETag"] = _TAG
    added: dict[str, Any] = {"parameters": [_IDEMPOTENCY_KEY]} if is_replayed else {}
    if headers:
        added["responses"] = {str(route.status_code or 200): {"headers": headers}}
    return added


def document(app: FastAPI) -> dict[str, Any]:
    """Returns the document of an application; made once and kept on it."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, openapi_version="3.1.0", description=_NOTES, routes=app.routes
        )
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        problem = Problem.model_json_schema(ref_template=_TEMPLATE, by_alias=True)
        schemas.update(problem.pop("$defs", {}))
        schemas["Problem"] = problem
        for name in _DROPPED:
            schemas.pop(name, None)
        for operations in made["paths"].values():
            for operation in operations.values():
                _complete(operation)
        app.openapi_schema = made
    return app.openapi_schema


def _complete(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    if any(item["name"] == "If-Match" for item in operation.get("parameters", [])):
        responses.setdefault("412", _problem("Precondition Failed"))
    if "requestBody" not in operation:
        responses.pop("415", None)
    for response in responses.values():
        # FastAPI calls every body that is not JSON a string, also where a schema says what it is made of.
        response.get("content", {}).get("text/event-stream", {}).get("schema", {}).pop("type", None)
    for status, headers in _HEADERS.items():
        if status in responses:
            responses[status]["headers"] = headers


def _problem(description: str) -> dict[str, Any]:
    schema = {"$ref": _TEMPLATE.format(model="Problem")}
    return {"description": description, "content": {"application/problem+json": {"schema": schema}}}


_IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Repeating the request with the same key gives the first answer, for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200},
}

_TAG: dict[str, Any] = {
    "description": "Names this state; a change may demand it by `If-Match`.",
    "schema": {"type": "string"},
}
_REPLAYED: dict[str, Any] = {
    "description": "`true` on an answer that was given before, for the same `Idempotency-Key`.",
    "schema": {"type": "string", "enum": ["true"]},
}
_RETRY: dict[str, Any] = {
    "Retry-After": {"description": "Seconds after which trying again may help.", "schema": {"type": "integer"}}
}
_CHALLENGE: dict[str, Any] = {
    "WWW-Authenticate": {"description": "`Bearer`, with the realm.", "schema": {"type": "string"}}
}
_HEADERS = {"401": _CHALLENGE, "429": _RETRY, "503": _RETRY}
"""Headers that every answer with that status has."""
