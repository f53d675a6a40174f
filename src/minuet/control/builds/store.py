"""Builds and builders in the database. The queue is the builds that are `Queued`; a lease is columns of its build."""

from __future__ import annotations

import datetime
import enum
import json
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.engine import Row

from minuet.control.builds.model import AutoDeploy, Build, Builder, BuildStatus, Lease, Source
from minuet.control.catalog.store import HOLDS
from minuet.infra.database import Transaction
from minuet.infra.tables import Moment, metadata
from minuet.protocol.building import BuildpackOffer, BuiltArtifact, Phase
from minuet.protocol.descriptor import Descriptor
from minuet.render.inputs import ComponentType

BUILDS = sa.Table(
    "build",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("organization", sa.String(64), nullable=False),
    sa.Column("project_id", sa.String(40), nullable=False),
    sa.Column("project", sa.String(64), nullable=False),
    sa.Column("component_id", sa.String(40), sa.ForeignKey("component.id", ondelete="CASCADE"), nullable=False),
    sa.Column("component", sa.String(64), nullable=False),
    sa.Column("component_type", sa.String(32), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("commit_id", sa.String(64), nullable=True),
    sa.Column("commit_message", sa.String(1000), nullable=True),
    sa.Column("commit_author", sa.String(300), nullable=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(64), nullable=False),
    sa.Column("message", sa.String(2000), nullable=False),
    sa.Column("phases", sa.Text, nullable=False),
    sa.Column("log_tail", sa.Text, nullable=False),
    sa.Column("artifact", sa.Text, nullable=True),
    sa.Column("descriptor", sa.Text, nullable=False),
    sa.Column("warnings", sa.Text, nullable=False),
    sa.Column("requested_by", sa.String(120), nullable=False),
    sa.Column("auto_deploy", sa.String(16), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("lease_id", sa.String(40), nullable=True, unique=True),
    sa.Column("lease_builder_id", sa.String(40), nullable=True),
    sa.Column("lease_incarnation", sa.String(80), nullable=True),
    sa.Column("lease_until", Moment, nullable=True),
    sa.Column("builder_id", sa.String(40), nullable=True),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("started_at", Moment, nullable=True),
    sa.Column("finished_at", Moment, nullable=True),
    sa.UniqueConstraint("component_id", "number"),
    sa.Index("ix_build_status_created_at", "status", "created_at"),
    sa.Index("ix_build_organization_id_status", "organization_id", "status"),
)

BUILDERS = sa.Table(
    "builder",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("name", sa.String(64), nullable=True),
    sa.Column("incarnation", sa.String(80), nullable=False),
    sa.Column("version", sa.String(60), nullable=False),
    sa.Column("url", sa.String(300), nullable=False),
    sa.Column("fingerprint", sa.String(100), nullable=True),
    sa.Column("public_key", sa.String(100), nullable=False),
    sa.Column("isolation", sa.String(40), nullable=False),
    sa.Column("offers", sa.Text, nullable=False),
    sa.Column("registered_at", Moment, nullable=False),
    sa.Column("seen_at", Moment, nullable=False),
)

BATCH = 200
"""Rows that one round of expiring or pruning looks at."""

_PHASES: TypeAdapter[tuple[Phase, ...]] = TypeAdapter(tuple[Phase, ...])
_OFFERS: TypeAdapter[tuple[BuildpackOffer, ...]] = TypeAdapter(tuple[BuildpackOffer, ...])


async def insert(tx: Transaction, build: Build) -> None:
    """Adds a build; raises `IntegrityError` if its number was taken meanwhile."""
    await tx.execute(sa.insert(BUILDS).values(**_values(build)))


async def save(tx: Transaction, build: Build) -> None:
    """Replaces what changes about a build: its status, lease and outcome."""
    values = _values(build)
    for fixed in ("id", "organization_id", "component_id", "number", "source", "created_at"):
        del values[fixed]
    place = (BUILDS.c.organization_id == build.organization_id, BUILDS.c.id == build.id)
    await tx.execute(sa.update(BUILDS).where(*place).values(**values))


async def last_number(tx: Transaction, component_id: str) -> int:
    """Returns the number of the component's newest build, 0 without one."""
    row = await tx.one(sa.select(sa.func.max(BUILDS.c.number)).where(BUILDS.c.component_id == component_id))
    return 0 if row is None or row[0] is None else int(row[0])  # type: ignore[call-overload]


async def unfinished(tx: Transaction, organization_id: str) -> int:
    """Returns how many builds of the organization wait or run."""
    is_open = BUILDS.c.status.in_([BuildStatus.QUEUED.value, BuildStatus.BUILDING.value])
    query = sa.select(sa.func.count()).select_from(BUILDS).where(BUILDS.c.organization_id == organization_id, is_open)
    row = await tx.one(query)
    return 0 if row is None else int(row[0])  # type: ignore[call-overload]


async def by_number(tx: Transaction, organization_id: str, component_id: str, number: int) -> Build | None:
    """Returns a build of a component by its number."""
    place = (BUILDS.c.organization_id == organization_id, BUILDS.c.component_id == component_id)
    row = await tx.one(sa.select(BUILDS).where(*place, BUILDS.c.number == number))
    return None if row is None else _build(row)


async def by_id(tx: Transaction, organization_id: str, build_id: str) -> Build | None:
    """Returns a build of the organization by its id."""
    place = (BUILDS.c.organization_id == organization_id, BUILDS.c.id == build_id)
    row = await tx.one(sa.select(BUILDS).where(*place))
    return None if row is None else _build(row)


async def by_lease(tx: Transaction, lease_id: str) -> Build | None:
    """Returns the build that a lease is or was for; for builders, who belong to no organization."""
    row = await tx.one(sa.select(BUILDS).where(BUILDS.c.lease_id == lease_id))
    return None if row is None else _build(row)


async def listed(
    tx: Transaction, organization_id: str, component_id: str, before: int | None, limit: int
) -> list[Build]:
    """Returns the builds of a component, newest first."""
    query = sa.select(BUILDS).where(BUILDS.c.organization_id == organization_id, BUILDS.c.component_id == component_id)
    if before is not None:
        query = query.where(BUILDS.c.number < before)
    return [_build(row) for row in await tx.all(query.order_by(BUILDS.c.number.desc()).limit(limit))]


async def newest_succeeded(tx: Transaction, organization_id: str, component_id: str) -> Build | None:
    """Returns the newest build that can be deployed."""
    place = (BUILDS.c.organization_id == organization_id, BUILDS.c.component_id == component_id)
    query = sa.select(BUILDS).where(*place, BUILDS.c.status == BuildStatus.SUCCEEDED.value)
    row = await tx.one(query.order_by(BUILDS.c.number.desc()).limit(1))
    return None if row is None else _build(row)


async def next_queued(tx: Transaction) -> Build | None:
    """Returns the build to work on next: of the organization with the fewest running ones, the oldest."""
    running = sa.alias(BUILDS)
    busy = (
        sa.select(sa.func.count())
        .select_from(running)
        .where(running.c.organization_id == BUILDS.c.organization_id, running.c.status == BuildStatus.BUILDING.value)
        .scalar_subquery()
    )
    query = sa.select(BUILDS).where(BUILDS.c.status == BuildStatus.QUEUED.value)
    row = await tx.one(query.order_by(busy, BUILDS.c.created_at, BUILDS.c.id).limit(1))
    return None if row is None else _build(row)


async def held_leases(tx: Transaction) -> list[Lease]:
    """Returns the leases of builds that are worked on, those that were renewed longest ago first."""
    columns = (BUILDS.c.lease_id, BUILDS.c.lease_builder_id, BUILDS.c.lease_incarnation, BUILDS.c.lease_until)
    held = sa.select(*columns).where(BUILDS.c.status == BuildStatus.BUILDING.value, BUILDS.c.lease_id.is_not(None))
    rows = await tx.all(held.order_by(BUILDS.c.lease_until).limit(BATCH))
    return [Lease(row.lease_id, row.lease_builder_id, row.lease_incarnation, row.lease_until) for row in rows]


async def leased_to_others(tx: Transaction, builder_id: str, incarnation: str) -> list[Build]:
    """Returns builds that an earlier incarnation of a builder had."""
    place = (BUILDS.c.status == BuildStatus.BUILDING.value, BUILDS.c.lease_builder_id == builder_id)
    query = sa.select(BUILDS).where(*place, BUILDS.c.lease_incarnation != incarnation)
    return [_build(row) for row in await tx.all(query.limit(BATCH))]


async def wanting_deployment(tx: Transaction) -> list[Build]:
    """Returns succeeded builds of pushes that are still to be deployed, oldest first."""
    wanted = (BUILDS.c.auto_deploy == AutoDeploy.WANTED.value, BUILDS.c.status == BuildStatus.SUCCEEDED.value)
    query = sa.select(BUILDS).where(*wanted).order_by(BUILDS.c.component_id, BUILDS.c.number).limit(BATCH)
    return [_build(row) for row in await tx.all(query)]


async def deployed_later(tx: Transaction, build: Build) -> bool:
    """Whether a newer push of the component was deployed already."""
    newer = (BUILDS.c.component_id == build.component_id, BUILDS.c.number > build.number)
    query = sa.select(BUILDS.c.id).where(*newer, BUILDS.c.auto_deploy == AutoDeploy.DONE.value)
    done = query.where(BUILDS.c.status == BuildStatus.SUCCEEDED.value)
    return await tx.one(done.limit(1)) is not None


async def prunable(tx: Transaction, component_id: str, keep: int) -> list[str]:
    """Returns ids of finished builds that nobody holds, but for the newest `keep` of them."""
    is_held = sa.exists().where(HOLDS.c.row_id == BUILDS.c.id)
    is_final = BUILDS.c.status.not_in([BuildStatus.QUEUED.value, BuildStatus.BUILDING.value])
    is_waited_for = sa.and_(
        BUILDS.c.auto_deploy == AutoDeploy.WANTED.value, BUILDS.c.status == BuildStatus.SUCCEEDED.value
    )
    query = sa.select(BUILDS.c.id).where(BUILDS.c.component_id == component_id, is_final, ~is_held, ~is_waited_for)
    rows = await tx.all(query.order_by(BUILDS.c.number.desc()).offset(keep).limit(BATCH))
    return [str(row.id) for row in rows]


async def existing(tx: Transaction, build_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Returns those of the builds that there are, whosever they are: for the builder that keeps their artifacts."""
    rows = await tx.all(sa.select(BUILDS.c.id).where(BUILDS.c.id.in_(build_ids)))
    return tuple(str(row.id) for row in rows)


async def delete(tx: Transaction, build_ids: list[str]) -> None:
    """Removes builds."""
    await tx.execute(sa.delete(BUILDS).where(BUILDS.c.id.in_(build_ids)))


async def put_builder(tx: Transaction, builder: Builder) -> None:
    """Adds a builder, or replaces what it said at its last start."""
    values = {column.name: getattr(builder, column.name, None) for column in BUILDERS.columns}
    values["offers"] = _OFFERS.dump_json(builder.offers, by_alias=True).decode()
    changed = await tx.execute(sa.update(BUILDERS).where(BUILDERS.c.id == builder.id).values(**values))
    if changed.rowcount == 0:
        await tx.execute(sa.insert(BUILDERS).values(**values))


async def mark_builder_seen(tx: Transaction, builder_id: str, now: datetime.datetime) -> None:
    """Records a sign of life."""
    await tx.execute(sa.update(BUILDERS).where(BUILDERS.c.id == builder_id).values(seen_at=now))


async def builder(tx: Transaction, builder_id: str) -> Builder | None:
    """Returns a builder."""
    row = await tx.one(sa.select(BUILDERS).where(BUILDERS.c.id == builder_id))
    return None if row is None else _builder(row)


async def builders(tx: Transaction) -> list[Builder]:
    """Returns every builder that has ever registered, the one heard of last first."""
    rows = await tx.all(sa.select(BUILDERS).order_by(BUILDERS.c.seen_at.desc()).limit(BATCH))
    return [_builder(row) for row in rows]


async def builders_after(tx: Transaction, after: str | None, limit: int) -> list[Builder]:
    """Returns builders by id, for pages."""
    query = sa.select(BUILDERS).order_by(BUILDERS.c.id).limit(limit)
    if after is not None:
        query = query.where(BUILDERS.c.id > after)
    return [_builder(row) for row in await tx.all(query)]


async def last_heard(tx: Transaction) -> datetime.datetime | None:
    """Returns when a builder was last heard of."""
    row = await tx.one(sa.select(BUILDERS.c.seen_at).order_by(BUILDERS.c.seen_at.desc()).limit(1))
    return None if row is None else row.seen_at


def _values(build: Build) -> dict[str, Any]:
    lease = build.lease
    source = build.source
    values = {
        column.name: _scalar(getattr(build, column.name, None))
        for column in BUILDS.columns
        if not column.name.startswith("lease_")
    }
    return values | {
        "source": json.dumps({name: _plain(getattr(source, name)) for name in Source.__dataclass_fields__}),
        "commit_id": build.commit,
        "phases": _PHASES.dump_json(build.phases, by_alias=True).decode(),
        "log_tail": json.dumps(build.log_tail),
        "artifact": None if build.artifact is None else build.artifact.wire(),
        "descriptor": build.descriptor.wire(),
        "warnings": json.dumps(build.warnings),
        "lease_id": None if lease is None else lease.id,
        "lease_builder_id": None if lease is None else lease.builder_id,
        "lease_incarnation": None if lease is None else lease.incarnation,
        "lease_until": None if lease is None else lease.until,
    }


def _scalar(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _plain(value: Any) -> Any:
    return dict(value) if hasattr(value, "keys") else value


def _build(row: Row[tuple[object, ...]]) -> Build:
    names = Build.__dataclass_fields__.keys() - {"lease", "commit"}
    values: dict[str, Any] = {name: getattr(row, name) for name in names}
    lease = None
    if row.lease_id is not None:
        lease = Lease(row.lease_id, row.lease_builder_id, row.lease_incarnation, row.lease_until)
    values |= {
        "commit": row.commit_id,
        "component_type": ComponentType(row.component_type),
        "source": Source(**json.loads(row.source)),
        "status": BuildStatus(row.status),
        "phases": _PHASES.validate_json(row.phases),
        "log_tail": tuple(json.loads(row.log_tail)),
        "artifact": None if row.artifact is None else BuiltArtifact.model_validate_json(row.artifact),
        "descriptor": Descriptor.model_validate_json(row.descriptor),
        "warnings": tuple(json.loads(row.warnings)),
        "auto_deploy": AutoDeploy(row.auto_deploy),
        "lease": lease,
    }
    return Build(**values)


def _builder(row: Row[tuple[object, ...]]) -> Builder:
    values: dict[str, Any] = {column.name: getattr(row, column.name) for column in BUILDERS.columns}
    return Builder(**(values | {"name": row.name or row.id, "offers": _OFFERS.validate_json(row.offers)}))
