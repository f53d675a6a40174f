"""Bearer tokens on the way in: found, checked before anything of the body is read, and left for the slices.

What a token means is decided by the `Authenticator` that the composition root
puts on the application; this module knows only the header.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, WebSocket
from fastapi.security import HTTPBearer

from minuet.kernel.errors import Unauthenticated
from minuet.kernel.secrets import Secret

Authenticator = Callable[[Secret], Awaitable[Any]]
"""Returns who calls; raises `Unauthenticated` for a token that is unknown, expired or revoked."""

MAX_TOKEN = 256
"""Longest token that is looked at, in characters."""

scheme = HTTPBearer(
    auto_error=False,
    description="A token of Minuet, for example from `minuet create token <name>`.",
    scheme_name="bearer",
)


def bearer_token(connection: Request | WebSocket) -> Secret:
    """Returns the bearer token of a request; raises `Unauthenticated` if there is none."""
    kind, _, token = connection.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if kind.lower() != "bearer" or not token:
        raise Unauthenticated(
            "the request carries no bearer token", code="TokenMissing", hint="send `Authorization: Bearer <token>`"
        )
    if len(token) > MAX_TOKEN:
        raise Unauthenticated("the token is not one of Minuet", code="TokenUnknown")
    return Secret(token)


async def authenticate(connection: Request | WebSocket) -> Any:
    """Finds out who calls, and leaves the answer on `state.caller`."""
    authenticator: Authenticator = connection.app.state.authenticator
    connection.state.caller = await authenticator(bearer_token(connection))
    return connection.state.caller
