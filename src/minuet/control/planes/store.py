"""Data planes, environments and pipelines in the database."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Row

from minuet.control.planes.model import DataPlane, Environment, Pipeline
from minuet.infra.database import Transaction
from minuet.infra.tables import BigNumber, Moment, metadata

PLANES = sa.Table(
    "data_plane",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=True, index=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("domain", sa.String(200), nullable=False),
    sa.Column("epoch", BigNumber, nullable=False),
    sa.Column("revision", BigNumber, nullable=False),
    sa.Column("session", BigNumber, nullable=False),
    sa.Column("sealing_key", sa.String(100), nullable=True),
    sa.Column("connected", sa.Boolean, nullable=False),
    sa.Column("since", Moment, nullable=False),
    sa.Column("last_seen", Moment, nullable=True),
    sa.Column("isolation", sa.String(40), nullable=False),
    sa.Column("gateway_url", sa.String(300), nullable=False),
    sa.Column("gateway_ready", sa.Boolean, nullable=False),
    sa.Column("agent_version", sa.String(60), nullable=False),
    sa.Column("warnings", sa.Text, nullable=False),
    sa.Column("acknowledged_epoch", BigNumber, nullable=False),
    sa.Column("acknowledged_revision", BigNumber, nullable=False),
    sa.Column("trouble", sa.Text, nullable=True),
    sa.Column("trouble_reason", sa.String(64), nullable=True),
    sa.Column("diverged_epoch", BigNumber, nullable=True),
    sa.Column("created_at", Moment, nullable=False),
)

ENVIRONMENTS = sa.Table(
    "environment",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), sa.ForeignKey("organization.id"), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("display_name", sa.String(120), nullable=False),
    sa.Column("plane_id", sa.String(40), sa.ForeignKey("data_plane.id"), nullable=False),
    sa.Column("critical", sa.Boolean, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.UniqueConstraint("organization_id", "name"),
)

PIPELINES = sa.Table(
    "pipeline",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), sa.ForeignKey("organization.id"), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("display_name", sa.String(120), nullable=True),
    sa.Column("environments", sa.Text, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.UniqueConstraint("organization_id", "name"),
)


async def insert_plane(tx: Transaction, plane: DataPlane) -> None:
    """Adds a data plane."""
    values = {column.name: getattr(plane, column.name) for column in PLANES.columns}
    await tx.execute(sa.insert(PLANES).values(**(values | {"warnings": texts(plane.warnings)})))


async def change_plane(tx: Transaction, plane_id: str, **values: object) -> None:
    """Sets columns of a data plane."""
    await tx.execute(sa.update(PLANES).where(PLANES.c.id == plane_id).values(**values))


async def plane_by_id(tx: Transaction, plane_id: str) -> DataPlane | None:
    """Returns a plane whatever its organization; for controllers and the link, not for users' requests."""
    row = await tx.one(sa.select(PLANES).where(PLANES.c.id == plane_id))
    return None if row is None else _plane(row)


async def plane_by_name(tx: Transaction, name: str) -> DataPlane | None:
    """Returns a plane whatever its organization; for the first start and the link."""
    row = await tx.one(sa.select(PLANES).where(PLANES.c.name == name))
    return None if row is None else _plane(row)


async def usable_plane(tx: Transaction, organization_id: str, name: str) -> DataPlane | None:
    """Returns a plane that the organization may use: a shared one or its own."""
    row = await tx.one(sa.select(PLANES).where(_usable(organization_id), PLANES.c.name == name))
    return None if row is None else _plane(row)


async def usable_planes(tx: Transaction, organization_id: str, after: str | None, limit: int) -> list[DataPlane]:
    """Returns the planes that the organization may use, by name."""
    query = sa.select(PLANES).where(_usable(organization_id)).order_by(PLANES.c.name).limit(limit)
    if after is not None:
        query = query.where(PLANES.c.name > after)
    return [_plane(row) for row in await tx.all(query)]


async def mark_all_disconnected(tx: Transaction, now: datetime.datetime) -> None:
    """Forgets links of a server that is gone; only for the one server of a SQLite file."""
    await tx.execute(sa.update(PLANES).where(PLANES.c.connected).values(connected=False, since=now))


async def insert_environment(tx: Transaction, environment: Environment) -> None:
    """Adds an environment."""
    values = {column.name: getattr(environment, column.name) for column in ENVIRONMENTS.columns}
    await tx.execute(sa.insert(ENVIRONMENTS).values(**values))


async def environment_by_name(tx: Transaction, organization_id: str, name: str) -> Environment | None:
    """Returns the organization's environment of that name."""
    row = await tx.one(_environments(organization_id).where(ENVIRONMENTS.c.name == name))
    return None if row is None else _environment(row)


async def environment_by_id(tx: Transaction, organization_id: str, environment_id: str) -> Environment | None:
    """Returns the organization's environment with that id."""
    row = await tx.one(_environments(organization_id).where(ENVIRONMENTS.c.id == environment_id))
    return None if row is None else _environment(row)


async def environments(tx: Transaction, organization_id: str, after: str | None, limit: int) -> list[Environment]:
    """Returns the organization's environments, by name."""
    query = _environments(organization_id).order_by(ENVIRONMENTS.c.name).limit(limit)
    if after is not None:
        query = query.where(ENVIRONMENTS.c.name > after)
    return [_environment(row) for row in await tx.all(query)]


async def change_environment(tx: Transaction, environment: Environment) -> None:
    """Writes down what can change about an environment."""
    place = (ENVIRONMENTS.c.organization_id == environment.organization_id, ENVIRONMENTS.c.id == environment.id)
    values = {"display_name": environment.display_name, "critical": environment.critical}
    await tx.execute(sa.update(ENVIRONMENTS).where(*place).values(**values))


async def delete_environment(tx: Transaction, environment: Environment) -> None:
    """Removes an environment; raises `IntegrityError` while a row of a slice above refers to it."""
    place = (ENVIRONMENTS.c.organization_id == environment.organization_id, ENVIRONMENTS.c.id == environment.id)
    await tx.execute(sa.delete(ENVIRONMENTS).where(*place))


async def insert_pipeline(tx: Transaction, pipeline: Pipeline) -> None:
    """Adds a pipeline."""
    await tx.execute(
        sa.insert(PIPELINES).values(
            id=pipeline.id,
            organization_id=pipeline.organization_id,
            name=pipeline.name,
            display_name=pipeline.display_name,
            environments=texts(pipeline.environments),
            created_at=pipeline.created_at,
        )
    )


async def pipeline_by_name(tx: Transaction, organization_id: str, name: str) -> Pipeline | None:
    """Returns the organization's pipeline of that name."""
    query = sa.select(PIPELINES).where(PIPELINES.c.organization_id == organization_id, PIPELINES.c.name == name)
    row = await tx.one(query)
    return None if row is None else _pipeline(row)


async def pipelines(tx: Transaction, organization_id: str, after: str | None, limit: int) -> list[Pipeline]:
    """Returns the organization's pipelines, by name."""
    query = sa.select(PIPELINES).where(PIPELINES.c.organization_id == organization_id)
    if after is not None:
        query = query.where(PIPELINES.c.name > after)
    return [_pipeline(row) for row in await tx.all(query.order_by(PIPELINES.c.name).limit(limit))]


async def change_pipeline(tx: Transaction, pipeline: Pipeline) -> None:
    """Writes down what can change about a pipeline."""
    place = (PIPELINES.c.organization_id == pipeline.organization_id, PIPELINES.c.id == pipeline.id)
    values = {"display_name": pipeline.display_name, "environments": texts(pipeline.environments)}
    await tx.execute(sa.update(PIPELINES).where(*place).values(**values))


async def delete_pipeline(tx: Transaction, pipeline: Pipeline) -> None:
    """Removes a pipeline."""
    place = (PIPELINES.c.organization_id == pipeline.organization_id, PIPELINES.c.id == pipeline.id)
    await tx.execute(sa.delete(PIPELINES).where(*place))


async def delete_all(tx: Transaction, organization_id: str) -> None:
    """Removes the pipelines and environments of an organization that goes."""
    for table in (PIPELINES, ENVIRONMENTS):
        await tx.execute(sa.delete(table).where(table.c.organization_id == organization_id))


async def count(tx: Transaction, table: sa.Table, organization_id: str) -> int:
    """Returns how many rows of a table the organization has."""
    query = sa.select(sa.func.count()).select_from(table).where(table.c.organization_id == organization_id)
    row = await tx.one(query)
    return 0 if row is None else int(row[0])  # type: ignore[call-overload]


def texts(items: Sequence[str]) -> str:
    """Returns the column form of a list of texts."""
    return json.dumps(list(items))


def _usable(organization_id: str) -> sa.ColumnElement[bool]:
    return sa.or_(PLANES.c.organization_id.is_(None), PLANES.c.organization_id == organization_id)


def _environments(organization_id: str) -> sa.Select[tuple[object, ...]]:
    query = sa.select(ENVIRONMENTS, PLANES.c.name.label("plane")).join(PLANES, PLANES.c.id == ENVIRONMENTS.c.plane_id)
    return query.where(ENVIRONMENTS.c.organization_id == organization_id)


def _plane(row: Row[tuple[object, ...]]) -> DataPlane:
    values = {column.name: getattr(row, column.name) for column in PLANES.columns}
    return DataPlane(**(values | {"warnings": tuple(json.loads(row.warnings))}))


def _environment(row: Row[tuple[object, ...]]) -> Environment:
    return Environment(
        id=row.id,
        organization_id=row.organization_id,
        name=row.name,
        display_name=row.display_name,
        plane_id=row.plane_id,
        plane=row.plane,
        critical=row.critical,
        created_at=row.created_at,
    )


def _pipeline(row: Row[tuple[object, ...]]) -> Pipeline:
    return Pipeline(
        id=row.id,
        organization_id=row.organization_id,
        name=row.name,
        display_name=row.display_name or row.name,
        environments=tuple(json.loads(row.environments)),
        created_at=row.created_at,
    )
