"""What is known of a link's trouble: its reason, and that the agent's log is another one than ours."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("data_plane", sa.Column("trouble_reason", sa.String(length=64), nullable=True))
    op.add_column("data_plane", sa.Column("diverged_epoch", _NUMBER, nullable=True))


def downgrade() -> None:
    op.drop_column("data_plane", "diverged_epoch")
    op.drop_column("data_plane", "trouble_reason")
