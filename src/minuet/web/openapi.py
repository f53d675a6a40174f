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
    "`Idempotency-Key`; changes may demand an `ETag` by `If-Match`."
)


def operation_id(route: APIRoute) -> str:
    """Returns the handler's name in camelCase: `create_token` becomes `createToken`."""
    head, *tail = route.name.split("_")
    return head + "".join(word.capitalize() for word in tail)


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
            for method, operation in operations.items():
                _complete(method, operation)
        app.openapi_schema = made
    return app.openapi_schema


def _complete(method: str, operation: dict[str, Any]) -> None:
    parameters = operation.setdefault("parameters", [])
    if any(item["name"] == "If-Match" for item in parameters):
        operation["responses"].setdefault("412", _problem("Precondition Failed"))
    if method == "post" and "security" in operation:
        parameters.append(_IDEMPOTENCY_KEY)
    if not parameters:
        del operation["parameters"]


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
