"""What the gateway says by itself: problems in JSON, each with a stable code and no detail of the inside.

Used by the chain only. Separate because the words are read by people and tested
one by one; the codes are those of the gateway's log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minuet.gateway.envoy_types import Resource, typed


@dataclass(frozen=True, slots=True)
class Reply:
    """When Envoy answers by itself and `when` holds (CEL over the access log's attributes), it says this."""

    when: str
    code: str
    title: str
    detail: str
    status: int | None = None


REPLIES = (
    Reply(
        "response.code_details.contains('[uri_too_long]')",
        "URI_TOO_LONG",
        "URI Too Long",
        "The address with its query is longer than the gateway accepts.",
        414,
    ),
    Reply(
        "response.code == 404",
        "RESOURCE_NOT_FOUND",
        "Not Found",
        "Nothing is deployed at this host and path.",
    ),
    Reply(
        "response.code == 413",
        "PAYLOAD_TOO_LARGE",
        "Content Too Large",
        "The body is larger than the gateway accepts.",
    ),
    Reply(
        "response.code == 431",
        "HEADERS_TOO_LARGE",
        "Request Header Fields Too Large",
        "One header, or all of them together, are larger than the gateway accepts.",
    ),
    Reply(
        "response.code == 408",
        "REQUEST_TIMEOUT",
        "Request Timeout",
        "The request did not arrive in time.",
    ),
    Reply(
        "response.code == 504",
        "BACKEND_TIMEOUT",
        "Gateway Timeout",
        "The application did not answer in time.",
    ),
    Reply(
        "response.code == 503",
        "NO_HEALTHY_BACKEND",
        "Service Unavailable",
        "No instance of the application answers at the moment.",
    ),
    Reply(
        "response.code == 502",
        "GATEWAY_ERROR",
        "Bad Gateway",
        "The application's answer is not valid HTTP, or larger than the gateway accepts.",
    ),
    Reply(
        "response.code >= 400 && response.code < 500",
        "BAD_REQUEST",
        "Bad Request",
        "The gateway does not accept this request.",
    ),
)
"""The first that fits is said."""


def local_replies() -> Resource:
    """Returns the connection manager's `local_reply_config`."""
    return {
        "mappers": [_plain_probe(), *(_mapper(reply) for reply in REPLIES)],
        "body_format": _problem("GATEWAY_ERROR", "Gateway Error", "The gateway could not handle the request."),
    }


def _mapper(reply: Reply) -> Resource:
    mapper: Resource = {
        "filter": _when(reply.when),
        "body_format_override": _problem(reply.code, reply.title, reply.detail),
    }
    return mapper if reply.status is None else mapper | {"status_code": reply.status}


def _plain_probe() -> Resource:
    """The gateway's own page says only which routes are in force."""
    text = {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}}
    return {"filter": _when("response.code == 200"), "body_format_override": text}


def _when(expression: str) -> Resource:
    kind = "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
    return {"extension_filter": {"name": "cel", "typed_config": typed(kind, expression=expression)}}


def _problem(code: str, title: str, detail: str) -> Resource:
    """The body of RFC 9457."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": "%RESPONSE_CODE%",
        "detail": detail,
        "code": code,
        "requestId": "%REQ(X-REQUEST-ID)%",
    }
    return {"json_format": body, "content_type": "application/problem+json"}
