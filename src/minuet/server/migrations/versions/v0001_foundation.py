"""The first schema: outbox, leases, tokens, organizations, data planes, environments, pipelines, desired state.

Types are written out here, because a revision must mean the same for ever.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_MOMENT = sa.DateTime(timezone=True)
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_kit()
    _create_owners()
    _create_planes()
    _create_desired_state()


def downgrade() -> None:
    op.drop_table("desired_revision")
    op.drop_table("desired_document")
    op.drop_table("pipeline")
    op.drop_table("environment")
    op.drop_table("data_plane")
    op.drop_table("token")
    op.drop_table("organization")
    op.drop_table("idempotency")
    op.drop_table("lease")
    op.drop_table("outbox_cursor")
    op.drop_table("outbox")


def _create_kit() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=True),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_outbox_created_at"), "outbox", ["created_at"], unique=False)
    op.create_table(
        "outbox_cursor",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("position", _NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_outbox_cursor")),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("holder", sa.String(length=40), nullable=False),
        sa.Column("fence", _NUMBER, nullable=False),
        sa.Column("beat", _NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lease")),
    )
    op.create_table(
        "idempotency",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=True),
        sa.Column("body_hash", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_created_at"), "idempotency", ["created_at"], unique=False)


def _create_owners() -> None:
    op.create_table(
        "organization",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("display_name", sa.String(length=120), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organization")),
        sa.UniqueConstraint("name", name=op.f("uq_organization_name")),
    )
    op.create_table(
        "token",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=True),
        sa.Column("organization", sa.String(length=64), nullable=True),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("plane_id", sa.String(length=40), nullable=True),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=True),
        sa.Column("revoked_at", _MOMENT, nullable=True),
        sa.Column("last_used_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token")),
        sa.UniqueConstraint("hash", name=op.f("uq_token_hash")),
    )
    op.create_index(op.f("ix_token_organization_id"), "token", ["organization_id"], unique=False)


def _create_planes() -> None:
    op.create_table(
        "data_plane",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=True),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("domain", sa.String(length=200), nullable=False),
        sa.Column("epoch", _NUMBER, nullable=False),
        sa.Column("revision", _NUMBER, nullable=False),
        sa.Column("session", _NUMBER, nullable=False),
        sa.Column("sealing_key", sa.String(length=100), nullable=True),
        sa.Column("connected", sa.Boolean(), nullable=False),
        sa.Column("since", _MOMENT, nullable=False),
        sa.Column("last_seen", _MOMENT, nullable=True),
        sa.Column("isolation", sa.String(length=40), nullable=False),
        sa.Column("gateway_url", sa.String(length=300), nullable=False),
        sa.Column("gateway_ready", sa.Boolean(), nullable=False),
        sa.Column("agent_version", sa.String(length=60), nullable=False),
        sa.Column("warnings", sa.Text(), nullable=False),
        sa.Column("acknowledged_epoch", _NUMBER, nullable=False),
        sa.Column("acknowledged_revision", _NUMBER, nullable=False),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_data_plane")),
        sa.UniqueConstraint("name", name=op.f("uq_data_plane_name")),
    )
    op.create_index(op.f("ix_data_plane_organization_id"), "data_plane", ["organization_id"], unique=False)
    op.create_table(
        "environment",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("display_name", sa.String(length=120), nullable=False),
        sa.Column("plane_id", sa.String(length=40), nullable=False),
        sa.Column("critical", sa.Boolean(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"], name=op.f("fk_environment_organization_id")),
        sa.ForeignKeyConstraint(["plane_id"], ["data_plane.id"], name=op.f("fk_environment_plane_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_environment")),
        sa.UniqueConstraint("organization_id", "name", name=op.f("uq_environment_organization_id_name")),
    )
    op.create_table(
        "pipeline",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("environments", sa.Text(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"], name=op.f("fk_pipeline_organization_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pipeline")),
        sa.UniqueConstraint("organization_id", "name", name=op.f("uq_pipeline_organization_id_name")),
    )


def _create_desired_state() -> None:
    op.create_table(
        "desired_document",
        sa.Column("plane_id", sa.String(length=40), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("revision", _NUMBER, nullable=False),
        sa.Column("is_removed", sa.Boolean(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["plane_id"], ["data_plane.id"], name=op.f("fk_desired_document_plane_id")),
        sa.PrimaryKeyConstraint("plane_id", "key", name=op.f("pk_desired_document")),
    )
    op.create_table(
        "desired_revision",
        sa.Column("plane_id", sa.String(length=40), nullable=False),
        sa.Column("epoch", _NUMBER, nullable=False),
        sa.Column("revision", _NUMBER, nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("signature", sa.String(length=120), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["plane_id"], ["data_plane.id"], name=op.f("fk_desired_revision_plane_id")),
        sa.PrimaryKeyConstraint("plane_id", "epoch", "revision", name=op.f("pk_desired_revision")),
    )
