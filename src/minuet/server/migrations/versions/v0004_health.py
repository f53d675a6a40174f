"""Health checks, declared in a revision of a configuration; revisions from before have none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("configuration", sa.Column("health", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("configuration", "health")
