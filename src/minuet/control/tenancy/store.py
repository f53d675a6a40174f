"""Organizations in the database."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Row

from minuet.control.tenancy.model import Organization
from minuet.infra.database import Transaction
from minuet.infra.tables import Moment, metadata

ORGANIZATIONS = sa.Table(
    "organization",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("display_name", sa.String(120), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
)


async def insert(tx: Transaction, organization: Organization) -> None:
    """Adds an organization; raises `IntegrityError` if the name was taken meanwhile."""
    await tx.execute(
        sa.insert(ORGANIZATIONS).values(
            id=organization.id,
            name=organization.name,
            display_name=organization.display_name,
            created_at=organization.created_at,
        )
    )


async def delete(tx: Transaction, organization_id: str) -> None:
    """Removes an organization; raises `IntegrityError` while a row refers to it."""
    await tx.execute(sa.delete(ORGANIZATIONS).where(ORGANIZATIONS.c.id == organization_id))


async def by_name(tx: Transaction, name: str) -> Organization | None:
    """Returns the organization of that name."""
    row = await tx.one(sa.select(ORGANIZATIONS).where(ORGANIZATIONS.c.name == name))
    return None if row is None else _organization(row)


async def by_id(tx: Transaction, organization_id: str) -> Organization | None:
    """Returns the organization with that id."""
    row = await tx.one(sa.select(ORGANIZATIONS).where(ORGANIZATIONS.c.id == organization_id))
    return None if row is None else _organization(row)


async def listed(tx: Transaction, only: str | None, after: str | None, limit: int) -> list[Organization]:
    """Returns organizations by name: all of them, or `only` the one with that id."""
    query = sa.select(ORGANIZATIONS).order_by(ORGANIZATIONS.c.name).limit(limit)
    if only is not None:
        query = query.where(ORGANIZATIONS.c.id == only)
    if after is not None:
        query = query.where(ORGANIZATIONS.c.name > after)
    return [_organization(row) for row in await tx.all(query)]


def _organization(row: Row[tuple[object, ...]]) -> Organization:
    return Organization(row.id, row.name, row.display_name, row.created_at)
