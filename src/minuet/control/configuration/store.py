"""Configurations in the database: one immutable row per revision."""

from __future__ import annotations

import dataclasses
import datetime
import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from minuet.control.configuration.model import Configuration, StoredEntry
from minuet.infra.database import Transaction
from minuet.infra.tables import Moment, metadata
from minuet.kernel.health import HealthCheck, ProbeKind
from minuet.render.inputs import EntryKind

CONFIGURATIONS = sa.Table(
    "configuration",
    metadata,
    sa.Column("component_id", sa.String(40), sa.ForeignKey("component.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("environment_id", sa.String(40), sa.ForeignKey("environment.id"), primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("project_id", sa.String(40), nullable=False),
    sa.Column("entries", sa.Text, nullable=False),
    sa.Column("created_by", sa.String(120), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("health", sa.Text, nullable=True),
)


async def insert(tx: Transaction, configuration: Configuration, created_by: str, now: datetime.datetime) -> None:
    """Adds a revision; raises `IntegrityError` if another change took its number."""
    await tx.execute(
        sa.insert(CONFIGURATIONS).values(
            component_id=configuration.component_id,
            environment_id=configuration.environment_id,
            revision=configuration.revision,
            organization_id=configuration.organization_id,
            project_id=configuration.project_id,
            entries=json.dumps([_packed(entry) for entry in configuration.entries]),
            created_by=created_by,
            created_at=now,
            health=None if configuration.health is None else json.dumps(dataclasses.asdict(configuration.health)),
        )
    )


async def delete_of_environment(tx: Transaction, organization_id: str, environment_id: str) -> None:
    """Forgets what everything was configured with in an environment that goes."""
    place = (CONFIGURATIONS.c.organization_id == organization_id, CONFIGURATIONS.c.environment_id == environment_id)
    await tx.execute(sa.delete(CONFIGURATIONS).where(*place))


async def latest(tx: Transaction, organization_id: str, component_id: str, environment_id: str) -> Configuration | None:
    """Returns the newest revision."""
    query = _place(organization_id, component_id, environment_id).order_by(CONFIGURATIONS.c.revision.desc())
    row = await tx.one(query.limit(1))
    return None if row is None else _configuration(row)


async def at_revision(
    tx: Transaction, organization_id: str, component_id: str, environment_id: str, revision: int
) -> Configuration | None:
    """Returns one revision."""
    query = _place(organization_id, component_id, environment_id).where(CONFIGURATIONS.c.revision == revision)
    row = await tx.one(query)
    return None if row is None else _configuration(row)


def _place(organization_id: str, component_id: str, environment_id: str) -> sa.Select[tuple[object, ...]]:
    return sa.select(CONFIGURATIONS).where(
        CONFIGURATIONS.c.organization_id == organization_id,
        CONFIGURATIONS.c.component_id == component_id,
        CONFIGURATIONS.c.environment_id == environment_id,
    )


def _packed(entry: StoredEntry) -> dict[str, object]:
    packed: dict[str, object] = {
        "name": entry.name,
        "kind": entry.kind.value,
        "version": entry.version,
        "size": entry.size,
        "updatedAt": entry.updated_at.isoformat(),
        "value": entry.value,
        "sealed": entry.sealed,
        "mountPath": entry.mount_path,
    }
    return {name: value for name, value in packed.items() if value is not None}


def _configuration(row: Row[tuple[object, ...]]) -> Configuration:
    entries = tuple(
        StoredEntry(
            name=item["name"],
            kind=EntryKind(item["kind"]),
            version=item["version"],
            size=item["size"],
            updated_at=datetime.datetime.fromisoformat(item["updatedAt"]),
            value=item.get("value"),
            sealed=item.get("sealed"),
            mount_path=item.get("mountPath"),
        )
        for item in json.loads(row.entries)
    )
    return Configuration(
        row.organization_id,
        row.project_id,
        row.component_id,
        row.environment_id,
        row.revision,
        entries,
        None if row.health is None else _health(json.loads(row.health)),
    )


def _health(packed: dict[str, Any]) -> HealthCheck:
    return HealthCheck(**packed | {"kind": ProbeKind(packed["kind"])})
