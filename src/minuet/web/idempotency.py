"""Creates that are safe to repeat: the first answer is kept and given again.

`Idempotency-Key`, the caller and the route name a create; the hash of the body
tells a repetition from a mistake. The answer is a row of the same transaction
as the create, so it exists exactly if the create does, in every replica and
after any crash. Answers may hold new tokens, hence they are sealed.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from typing import Any

import sqlalchemy as sa
from fastapi import Request, Response

from minuet.infra.database import Transaction
from minuet.infra.tables import Moment, metadata
from minuet.infra.vault import Vault
from minuet.kernel.clock import SystemClock
from minuet.kernel.errors import Conflict, invalid_field
from minuet.kernel.secrets import Secret

TABLE = sa.Table(
    "idempotency",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=True),
    sa.Column("body_hash", sa.String(64), nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Column("created_at", Moment, nullable=False, index=True),
)

KEEP = datetime.timedelta(hours=24)
"""How long a repetition is answered; longer than any sensible client tries."""

MAX_KEY = 200
_KEPT_HEADERS = ("etag", "location")


class Replay(Exception):
    """Ends the handling of a request with the answer that was given the first time."""

    def __init__(self, response: Response) -> None:
        super().__init__("the answer is known")
        self.response = response


async def replay(request: Request, transaction: Transaction) -> None:
    """Raises `Replay` with the kept answer, or marks the request so that its answer is kept.

    Raises `Conflict` when the key was used with another body.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return
    if not key or len(key) > MAX_KEY:
        raise invalid_field("Idempotency-Key", f"must have 1 to {MAX_KEY} characters")
    name = _name(request, key)
    row = await transaction.one(sa.select(TABLE).where(TABLE.c.key == name))
    if row is None:
        request.state.replay_key = name
        return
    if row.body_hash != await _body_hash(request):
        raise Conflict(
            "this Idempotency-Key was used with another body", code="IdempotencyKeyReused", hint="use a new key"
        )
    raise Replay(_response(request, name, row.answer, row.status))


async def remember(request: Request, transaction: Transaction, response: Response) -> None:
    """Keeps the answer of a create in the transaction of the create."""
    name: str = request.state.replay_key
    kept = {
        "body": bytes(response.body).decode(),
        "type": response.headers.get("content-type"),
        "headers": {key: response.headers[key] for key in _KEPT_HEADERS if key in response.headers},
    }
    await transaction.execute(
        sa.insert(TABLE).values(
            key=name,
            organization_id=request.state.caller.organization_id,
            body_hash=await _body_hash(request),
            status=response.status_code,
            answer=_vault(request).seal(Secret(json.dumps(kept)), _context(name)),
            created_at=SystemClock().now(),
        )
    )


async def prune(transaction: Transaction, now: datetime.datetime) -> int:
    """Deletes answers that nobody will ask for again; returns how many."""
    return (await transaction.execute(sa.delete(TABLE).where(TABLE.c.created_at < now - KEEP))).rowcount


def _response(request: Request, name: str, answer: str, status: int) -> Response:
    kept: dict[str, Any] = json.loads(_vault(request).open(answer, _context(name)).reveal())
    headers = {**kept["headers"], "Idempotent-Replayed": "true"}
    return Response(kept["body"], status, headers, media_type=kept["type"])


def _vault(request: Request) -> Vault:
    vault: Vault = request.app.state.vault
    return vault


def _context(name: str) -> str:
    return f"idempotency/{name}"


def _name(request: Request, key: str) -> str:
    parts = [request.state.caller.token_id, request.method, request.url.path, key]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


async def _body_hash(request: Request) -> str:
    return hashlib.sha256(await request.body()).hexdigest()
