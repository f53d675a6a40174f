"""What the API can change since: display names, rotated credentials, the names of builders, which keys belong to the data."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("pipeline", sa.Column("display_name", sa.String(length=120), nullable=True))
    op.add_column("credential", sa.Column("display_name", sa.String(length=120), nullable=True))
    op.add_column("credential", sa.Column("updated_at", _MOMENT, nullable=True))
    op.add_column("builder", sa.Column("name", sa.String(length=64), nullable=True))
    op.create_table(
        "own_key",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_own_key")),
    )


def downgrade() -> None:
    op.drop_table("own_key")
    op.drop_column("builder", "name")
    op.drop_column("credential", "updated_at")
    op.drop_column("credential", "display_name")
    op.drop_column("pipeline", "display_name")
