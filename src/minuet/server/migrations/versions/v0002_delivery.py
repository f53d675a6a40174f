"""Catalog, configurations, builds and deliveries. Types are written out, because a revision must mean the same for ever."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_MOMENT = sa.DateTime(timezone=True)
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_credentials()
    _create_catalog()
    _create_configurations()
    _create_builds()
    _create_releases()
    _create_targets()


def downgrade() -> None:
    for table in (
        "deployment",
        "release",
        "sealed_value",
        "delivery_target",
        "configuration",
        "build",
        "builder",
        "component",
        "project",
        "credential",
        "hold",
    ):
        op.drop_table(table)


def _create_credentials() -> None:
    op.create_table(
        "hold",
        sa.Column("row_id", sa.String(length=40), nullable=False),
        sa.Column("holder", sa.String(length=120), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("reason", sa.String(length=300), nullable=False),
        sa.PrimaryKeyConstraint("row_id", "holder", name=op.f("pk_hold")),
    )
    op.create_table(
        "credential",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("username", sa.String(length=200), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"], name=op.f("fk_credential_organization_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credential")),
        sa.UniqueConstraint("organization_id", "name", name=op.f("uq_credential_organization_id_name")),
    )
    op.create_table(
        "builder",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("incarnation", sa.String(length=80), nullable=False),
        sa.Column("version", sa.String(length=60), nullable=False),
        sa.Column("url", sa.String(length=300), nullable=False),
        sa.Column("fingerprint", sa.String(length=100), nullable=True),
        sa.Column("public_key", sa.String(length=100), nullable=False),
        sa.Column("isolation", sa.String(length=40), nullable=False),
        sa.Column("offers", sa.Text(), nullable=False),
        sa.Column("registered_at", _MOMENT, nullable=False),
        sa.Column("seen_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_builder")),
    )


def _create_catalog() -> None:
    op.create_table(
        "project",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("display_name", sa.String(length=120), nullable=False),
        sa.Column("description", sa.String(length=1000), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"], name=op.f("fk_project_organization_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project")),
        sa.UniqueConstraint("organization_id", "name", name=op.f("uq_project_organization_id_name")),
    )
    op.create_table(
        "component",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("display_name", sa.String(length=120), nullable=False),
        sa.Column("description", sa.String(length=1000), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("repository", sa.String(length=500), nullable=True),
        sa.Column("branch", sa.String(length=200), nullable=False),
        sa.Column("directory", sa.String(length=500), nullable=False),
        sa.Column("credential", sa.String(length=64), nullable=True),
        sa.Column("build_configs", sa.Text(), nullable=False),
        sa.Column("build_environment", sa.Text(), nullable=False),
        sa.Column("auto_build", sa.Boolean(), nullable=False),
        sa.Column("auto_deploy", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"], name=op.f("fk_component_organization_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_component_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_component")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_component_project_id_name")),
    )
    op.create_index("ix_component_organization_id_state", "component", ["organization_id", "state"], unique=False)


def _create_configurations() -> None:
    op.create_table(
        "configuration",
        sa.Column("component_id", sa.String(length=40), nullable=False),
        sa.Column("environment_id", sa.String(length=40), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("entries", sa.Text(), nullable=False),
        sa.Column("created_by", sa.String(length=120), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["component_id"], ["component.id"], name=op.f("fk_configuration_component_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["environment_id"], ["environment.id"], name=op.f("fk_configuration_environment_id")),
        sa.PrimaryKeyConstraint("component_id", "environment_id", "revision", name=op.f("pk_configuration")),
    )


def _create_builds() -> None:
    op.create_table(
        "build",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("organization", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("component_id", sa.String(length=40), nullable=False),
        sa.Column("component", sa.String(length=64), nullable=False),
        sa.Column("component_type", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("commit_id", sa.String(length=64), nullable=True),
        sa.Column("commit_message", sa.String(length=1000), nullable=True),
        sa.Column("commit_author", sa.String(length=300), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("message", sa.String(length=2000), nullable=False),
        sa.Column("phases", sa.Text(), nullable=False),
        sa.Column("log_tail", sa.Text(), nullable=False),
        sa.Column("artifact", sa.Text(), nullable=True),
        sa.Column("descriptor", sa.Text(), nullable=False),
        sa.Column("warnings", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.String(length=120), nullable=False),
        sa.Column("auto_deploy", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_id", sa.String(length=40), nullable=True),
        sa.Column("lease_builder_id", sa.String(length=40), nullable=True),
        sa.Column("lease_incarnation", sa.String(length=80), nullable=True),
        sa.Column("lease_until", _MOMENT, nullable=True),
        sa.Column("builder_id", sa.String(length=40), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("started_at", _MOMENT, nullable=True),
        sa.Column("finished_at", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["component_id"], ["component.id"], name=op.f("fk_build_component_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_build")),
        sa.UniqueConstraint("component_id", "number", name=op.f("uq_build_component_id_number")),
        sa.UniqueConstraint("lease_id", name=op.f("uq_build_lease_id")),
    )
    op.create_index("ix_build_organization_id_status", "build", ["organization_id", "status"], unique=False)
    op.create_index("ix_build_status_created_at", "build", ["status", "created_at"], unique=False)


def _create_releases() -> None:
    op.create_table(
        "release",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("component_id", sa.String(length=40), nullable=False),
        sa.Column("build_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("day", sa.String(length=8), nullable=False),
        sa.Column("day_number", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.String(length=120), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["build_id"], ["build.id"], name=op.f("fk_release_build_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["component_id"], ["component.id"], name=op.f("fk_release_component_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_release")),
        sa.UniqueConstraint("component_id", "build_id", name=op.f("uq_release_component_id_build_id")),
        sa.UniqueConstraint("component_id", "name", name=op.f("uq_release_component_id_name")),
    )
    op.create_table(
        "deployment",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("component_id", sa.String(length=40), nullable=False),
        sa.Column("environment_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("generation", _NUMBER, nullable=False),
        sa.Column("origin", _NUMBER, nullable=False),
        sa.Column("release_id", sa.String(length=40), nullable=False),
        sa.Column("config_revision", sa.Integer(), nullable=False),
        sa.Column("replicas", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("restart", sa.String(length=40), nullable=False),
        sa.Column("requested_by", sa.String(length=120), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("ready_at", _MOMENT, nullable=True),
        sa.Column("closed", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["component_id"], ["component.id"], name=op.f("fk_deployment_component_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["environment_id"], ["environment.id"], name=op.f("fk_deployment_environment_id")),
        sa.ForeignKeyConstraint(
            ["release_id"], ["release.id"], name=op.f("fk_deployment_release_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployment")),
        sa.UniqueConstraint(
            "component_id",
            "environment_id",
            "generation",
            name=op.f("uq_deployment_component_id_environment_id_generation"),
        ),
        sa.UniqueConstraint("component_id", "name", name=op.f("uq_deployment_component_id_name")),
    )


def _create_targets() -> None:
    op.create_table(
        "delivery_target",
        sa.Column("component_id", sa.String(length=40), nullable=False),
        sa.Column("environment_id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("plane_id", sa.String(length=40), nullable=False),
        sa.Column("current_id", sa.String(length=40), nullable=True),
        sa.Column("generation", _NUMBER, nullable=False),
        sa.Column("removed_by", sa.String(length=300), nullable=True),
        sa.Column("appended_id", sa.String(length=40), nullable=True),
        sa.Column("appended_hash", sa.String(length=80), nullable=True),
        sa.Column("appended_epoch", _NUMBER, nullable=False),
        sa.Column("appended_revision", _NUMBER, nullable=False),
        sa.Column("addresses", sa.Text(), nullable=False),
        sa.Column("not_in_force", sa.Text(), nullable=False),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.Column("observed", sa.Text(), nullable=True),
        sa.Column("observed_at", _MOMENT, nullable=True),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["component_id"], ["component.id"], name=op.f("fk_delivery_target_component_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["environment_id"], ["environment.id"], name=op.f("fk_delivery_target_environment_id")),
        sa.ForeignKeyConstraint(["plane_id"], ["data_plane.id"], name=op.f("fk_delivery_target_plane_id")),
        sa.PrimaryKeyConstraint("component_id", "environment_id", name=op.f("pk_delivery_target")),
    )
    op.create_index(op.f("ix_delivery_target_plane_id"), "delivery_target", ["plane_id"], unique=False)
    op.create_table(
        "sealed_value",
        sa.Column("component_id", sa.String(length=40), nullable=False),
        sa.Column("environment_id", sa.String(length=40), nullable=False),
        sa.Column("plane_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("sealing_key", sa.String(length=100), nullable=False),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["component_id"], ["component.id"], name=op.f("fk_sealed_value_component_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(
            "component_id", "environment_id", "plane_id", "name", "version", name=op.f("pk_sealed_value")
        ),
    )
