"""Tokens in the database: hashes only, found by hash, listed by organization."""

from __future__ import annotations

import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Row

from minuet.control.identity.model import Role, Token
from minuet.infra.database import Transaction
from minuet.infra.tables import Moment, metadata

TOKENS = sa.Table(
    "token",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=True, index=True),
    sa.Column("organization", sa.String(64), nullable=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("plane_id", sa.String(40), nullable=True),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("expires_at", Moment, nullable=True),
    sa.Column("revoked_at", Moment, nullable=True),
    sa.Column("last_used_at", Moment, nullable=True),
)


async def insert(tx: Transaction, token: Token, organization: str | None, token_hash: str) -> None:
    """Adds a token; only the hash of its text is kept."""
    values = {
        "id": token.id,
        "organization_id": token.organization_id,
        "organization": organization,
        "name": token.name,
        "role": token.role.value,
        "plane_id": token.plane_id,
        "hash": token_hash,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
    }
    await tx.execute(sa.insert(TOKENS).values(**values))


async def by_hash(tx: Transaction, token_hash: str) -> tuple[Token, str | None] | None:
    """Returns the token with that hash and the name of its organization, revoked or not."""
    row = await tx.one(sa.select(TOKENS).where(TOKENS.c.hash == token_hash))
    return None if row is None else (_token(row), row.organization)


async def listed(tx: Transaction, organization_id: str, after: str | None, limit: int) -> list[Token]:
    """Returns the tokens of an organization that were not revoked, by id."""
    query = sa.select(TOKENS).where(*_live(organization_id)).order_by(TOKENS.c.id).limit(limit)
    if after is not None:
        query = query.where(TOKENS.c.id > after)
    return [_token(row) for row in await tx.all(query)]


async def find(tx: Transaction, organization_id: str, token: str) -> Token | None:
    """Returns a token of the organization by id or name, unless it was revoked."""
    is_named = sa.or_(TOKENS.c.id == token, TOKENS.c.name == token)
    row = await tx.one(sa.select(TOKENS).where(*_live(organization_id), is_named))
    return None if row is None else _token(row)


async def count(tx: Transaction, organization_id: str) -> int:
    """Returns how many tokens of the organization were not revoked, expired ones included."""
    row = await tx.one(sa.select(sa.func.count()).select_from(TOKENS).where(*_live(organization_id)))
    return 0 if row is None else int(row[0])  # type: ignore[call-overload]


async def count_valid(tx: Transaction, organization_id: str, roles: tuple[Role, ...], now: datetime.datetime) -> int:
    """Returns how many tokens of these roles still open something."""
    names = [role.value for role in roles]
    is_valid = sa.or_(TOKENS.c.expires_at.is_(None), TOKENS.c.expires_at > now)
    query = sa.select(sa.func.count()).select_from(TOKENS)
    row = await tx.one(query.where(*_live(organization_id), TOKENS.c.role.in_(names), is_valid))
    return 0 if row is None else int(row[0])  # type: ignore[call-overload]


async def revoke(tx: Transaction, organization_id: str, token_id: str, now: datetime.datetime) -> None:
    """Marks a token as revoked; it opens nothing from the commit on."""
    query = sa.update(TOKENS).where(*_live(organization_id), TOKENS.c.id == token_id).values(revoked_at=now)
    await tx.execute(query)


async def delete_all(tx: Transaction, organization_id: str) -> None:
    """Removes every token of an organization that goes, revoked ones included."""
    await tx.execute(sa.delete(TOKENS).where(TOKENS.c.organization_id == organization_id))


async def revoke_neighbours(tx: Transaction, role: Role, plane_id: str | None, now: datetime.datetime) -> None:
    """Revokes every credential of that role for the platform, or for one of its data planes."""
    place = (
        TOKENS.c.role == role.value,
        TOKENS.c.organization_id.is_(None),
        TOKENS.c.plane_id.is_not_distinct_from(plane_id),
    )
    await tx.execute(sa.update(TOKENS).where(*place, TOKENS.c.revoked_at.is_(None)).values(revoked_at=now))


async def mark_used(tx: Transaction, used: dict[str, datetime.datetime]) -> None:
    """Records when tokens were last used."""
    for token_id, moment in used.items():
        await tx.execute(sa.update(TOKENS).where(TOKENS.c.id == token_id).values(last_used_at=moment))


def _live(organization_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (TOKENS.c.organization_id == organization_id, TOKENS.c.revoked_at.is_(None))


def _token(row: Row[tuple[object, ...]]) -> Token:
    return Token(
        id=row.id,
        organization_id=row.organization_id,
        name=row.name,
        role=Role(row.role),
        plane_id=row.plane_id,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
