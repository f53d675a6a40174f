"""The ciphertexts that were made of a target's secrets, kept so that the same secret stays the same document."""

from __future__ import annotations

import sqlalchemy as sa

from minuet.control.delivery.model import SealedSecret, Target
from minuet.infra.database import Transaction
from minuet.infra.tables import metadata

SEALED = sa.Table(
    "sealed_value",
    metadata,
    sa.Column("component_id", sa.String(40), sa.ForeignKey("component.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("environment_id", sa.String(40), primary_key=True),
    sa.Column("plane_id", sa.String(40), primary_key=True),
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("sealing_key", sa.String(100), nullable=False),
    sa.Column("ciphertext", sa.Text, nullable=False),
)


async def known(tx: Transaction, target: Target, sealing_key: str) -> dict[tuple[str, int], str]:
    """Returns the ciphertexts that were made for a target's plane and its present key."""
    rows = await tx.all(sa.select(SEALED).where(*_place(target), SEALED.c.sealing_key == sealing_key))
    return {(str(row.name), int(row.version)): str(row.ciphertext) for row in rows}


async def put(tx: Transaction, target: Target, value: SealedSecret) -> None:
    """Keeps a ciphertext, so that the same secret stays the same document.

    One for another key of the plane is replaced; raises `IntegrityError` when
    somebody else kept one for this key meanwhile.
    """
    place = (*_place(target), SEALED.c.name == value.name, SEALED.c.version == value.version)
    await tx.execute(sa.delete(SEALED).where(*place, SEALED.c.sealing_key != value.sealing_key))
    await tx.execute(
        sa.insert(SEALED).values(
            component_id=target.component_id,
            environment_id=target.environment_id,
            plane_id=target.plane_id,
            name=value.name,
            version=value.version,
            organization_id=target.organization_id,
            sealing_key=value.sealing_key,
            ciphertext=value.ciphertext,
        )
    )


def _place(target: Target) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        SEALED.c.component_id == target.component_id,
        SEALED.c.environment_id == target.environment_id,
        SEALED.c.plane_id == target.plane_id,
    )
