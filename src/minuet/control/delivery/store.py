"""Releases, deployments and targets in the database."""

from __future__ import annotations

import datetime
import enum
import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from minuet.control.builds.store import BUILDS
from minuet.control.catalog.model import Lifecycle
from minuet.control.catalog.store import COMPONENTS, HOLDS, PROJECTS
from minuet.control.delivery import store_sealed
from minuet.control.delivery.model import (
    BUILD_HOLDER,
    TOMBSTONE,
    Action,
    Address,
    Deployment,
    Release,
    State,
    Target,
    Trouble,
)
from minuet.infra.database import Transaction
from minuet.infra.tables import BigNumber, Moment, metadata
from minuet.kernel.conditions import Condition, ConditionType, Status
from minuet.protocol.observed import ObservedWorkload

RELEASES = sa.Table(
    "release",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("component_id", sa.String(40), sa.ForeignKey("component.id", ondelete="CASCADE"), nullable=False),
    sa.Column("build_id", sa.String(40), sa.ForeignKey("build.id", ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.String(40), nullable=False),
    sa.Column("day", sa.String(8), nullable=False),
    sa.Column("day_number", sa.Integer, nullable=False),
    sa.Column("created_by", sa.String(120), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.UniqueConstraint("component_id", "name"),
    sa.UniqueConstraint("component_id", "build_id"),
)

DEPLOYMENTS = sa.Table(
    "deployment",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("project_id", sa.String(40), nullable=False),
    sa.Column("component_id", sa.String(40), sa.ForeignKey("component.id", ondelete="CASCADE"), nullable=False),
    sa.Column("environment_id", sa.String(40), sa.ForeignKey("environment.id"), nullable=False),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("generation", BigNumber, nullable=False),
    sa.Column("origin", BigNumber, nullable=False),
    sa.Column("release_id", sa.String(40), sa.ForeignKey("release.id", ondelete="CASCADE"), nullable=False),
    sa.Column("config_revision", sa.Integer, nullable=False),
    sa.Column("replicas", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("restart", sa.String(40), nullable=False),
    sa.Column("requested_by", sa.String(120), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("ready_at", Moment, nullable=True),
    sa.Column("closed", sa.Text, nullable=True),
    sa.UniqueConstraint("component_id", "name"),
    sa.UniqueConstraint("component_id", "environment_id", "generation"),
)

TARGETS = sa.Table(
    "delivery_target",
    metadata,
    sa.Column("component_id", sa.String(40), sa.ForeignKey("component.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("environment_id", sa.String(40), sa.ForeignKey("environment.id"), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("project_id", sa.String(40), nullable=False),
    sa.Column("plane_id", sa.String(40), sa.ForeignKey("data_plane.id"), nullable=False, index=True),
    sa.Column("current_id", sa.String(40), nullable=True),
    sa.Column("generation", BigNumber, nullable=False),
    sa.Column("removed_by", sa.String(300), nullable=True),
    sa.Column("appended_id", sa.String(40), nullable=True),
    sa.Column("appended_hash", sa.String(80), nullable=True),
    sa.Column("appended_epoch", BigNumber, nullable=False),
    sa.Column("appended_revision", BigNumber, nullable=False),
    sa.Column("addresses", sa.Text, nullable=False),
    sa.Column("not_in_force", sa.Text, nullable=False),
    sa.Column("trouble", sa.Text, nullable=True),
    sa.Column("observed", sa.Text, nullable=True),
    sa.Column("observed_at", Moment, nullable=True),
    sa.Column("updated_at", Moment, nullable=False),
)

BATCH = 500


async def insert_release(tx: Transaction, release: Release, day: str, day_number: int) -> None:
    """Adds a release."""
    await tx.execute(
        sa.insert(RELEASES).values(
            id=release.id,
            organization_id=release.organization_id,
            component_id=release.component_id,
            build_id=release.build_id,
            name=release.name,
            day=day,
            day_number=day_number,
            created_by=release.created_by,
            created_at=release.created_at,
        )
    )


async def last_release_of_day(tx: Transaction, component_id: str, day: str) -> int:
    """Returns how many releases of a day were numbered already."""
    place = (RELEASES.c.component_id == component_id, RELEASES.c.day == day)
    row = await tx.one(sa.select(sa.func.max(RELEASES.c.day_number)).where(*place))
    return 0 if row is None or row[0] is None else int(row[0])  # type: ignore[call-overload]


async def release_of_build(tx: Transaction, organization_id: str, build_id: str) -> Release | None:
    """Returns the release that a build was made into."""
    row = await tx.one(_releases(organization_id).where(RELEASES.c.build_id == build_id))
    return None if row is None else _release(row)


async def release_by_name(tx: Transaction, organization_id: str, component_id: str, name: str) -> Release | None:
    """Returns a release of a component."""
    place = (RELEASES.c.component_id == component_id, RELEASES.c.name == name)
    row = await tx.one(_releases(organization_id).where(*place))
    return None if row is None else _release(row)


async def releases(
    tx: Transaction, organization_id: str, component_id: str, before: str | None, limit: int
) -> list[Release]:
    """Returns the releases of a component, newest first."""
    query = _releases(organization_id).where(RELEASES.c.component_id == component_id)
    if before is not None:
        query = query.where(RELEASES.c.id < before)
    return [_release(row) for row in await tx.all(query.order_by(RELEASES.c.id.desc()).limit(limit))]


async def insert_deployment(tx: Transaction, deployment: Deployment, count: int) -> None:
    """Adds a deployment; raises `IntegrityError` if another one took its generation."""
    skipped = {"release", "build_id", "build", "closed"}
    values = {
        name: _scalar(getattr(deployment, name)) for name in Deployment.__dataclass_fields__ if name not in skipped
    }
    await tx.execute(sa.insert(DEPLOYMENTS).values(count=count, **values))


async def last_count(tx: Transaction, component_id: str, release_id: str) -> int:
    """Returns how many deployments of a release were counted already."""
    place = (DEPLOYMENTS.c.component_id == component_id, DEPLOYMENTS.c.release_id == release_id)
    row = await tx.one(sa.select(sa.func.max(DEPLOYMENTS.c.count)).where(*place))
    return 0 if row is None or row[0] is None else int(row[0])  # type: ignore[call-overload]


async def deployment_by_id(tx: Transaction, organization_id: str, deployment_id: str) -> Deployment | None:
    """Returns a deployment by its id."""
    row = await tx.one(_deployments(organization_id).where(DEPLOYMENTS.c.id == deployment_id))
    return None if row is None else _deployment(row)


async def deployments_by_id(tx: Transaction, organization_id: str, ids: Sequence[str]) -> dict[str, Deployment]:
    """Returns several deployments by their ids."""
    if not ids:
        return {}
    rows = await tx.all(_deployments(organization_id).where(DEPLOYMENTS.c.id.in_(ids)))
    return {str(row.id): _deployment(row) for row in rows}


async def deployment_by_name(tx: Transaction, organization_id: str, component_id: str, name: str) -> Deployment | None:
    """Returns a deployment of a component by what people call it."""
    place = (DEPLOYMENTS.c.component_id == component_id, DEPLOYMENTS.c.name == name)
    row = await tx.one(_deployments(organization_id).where(*place))
    return None if row is None else _deployment(row)


async def deployment_by_generation(tx: Transaction, target: Target, generation: int) -> Deployment | None:
    """Returns the deployment of a target that has that generation."""
    query = _of_target(target).where(DEPLOYMENTS.c.generation == generation)
    row = await tx.one(query)
    return None if row is None else _deployment(row)


async def history(tx: Transaction, target: Target, limit: int = BATCH) -> list[Deployment]:
    """Returns the deployments of a target, newest first."""
    query = _of_target(target).order_by(DEPLOYMENTS.c.generation.desc()).limit(limit)
    return [_deployment(row) for row in await tx.all(query)]


async def deployments(
    tx: Transaction,
    organization_id: str,
    component_id: str,
    *,
    environment_id: str | None,
    before: str | None,
    limit: int,
) -> list[Deployment]:
    """Returns the deployments of a component, newest first."""
    query = _deployments(organization_id).where(DEPLOYMENTS.c.component_id == component_id)
    if environment_id is not None:
        query = query.where(DEPLOYMENTS.c.environment_id == environment_id)
    if before is not None:
        query = query.where(DEPLOYMENTS.c.id < before)
    return [_deployment(row) for row in await tx.all(query.order_by(DEPLOYMENTS.c.id.desc()).limit(limit))]


async def was_ready(tx: Transaction, component_id: str, environment_id: str, release_id: str) -> bool:
    """Whether a release has been ready in an environment."""
    place = (DEPLOYMENTS.c.component_id == component_id, DEPLOYMENTS.c.environment_id == environment_id)
    is_proven = (DEPLOYMENTS.c.release_id == release_id, DEPLOYMENTS.c.ready_at.is_not(None))
    return await tx.one(sa.select(DEPLOYMENTS.c.id).where(*place, *is_proven).limit(1)) is not None


async def mark_ready(tx: Transaction, deployment: Deployment, now: datetime.datetime) -> None:
    """Records that a deployment was seen ready, the first time."""
    place = (DEPLOYMENTS.c.organization_id == deployment.organization_id, DEPLOYMENTS.c.id == deployment.id)
    await tx.execute(sa.update(DEPLOYMENTS).where(*place, DEPLOYMENTS.c.ready_at.is_(None)).values(ready_at=now))


async def close(tx: Transaction, deployment: Deployment, told: Sequence[Condition]) -> None:
    """Keeps what was known of a deployment when another took its place."""
    place = (DEPLOYMENTS.c.organization_id == deployment.organization_id, DEPLOYMENTS.c.id == deployment.id)
    packed = json.dumps([_packed_condition(condition) for condition in told])
    await tx.execute(sa.update(DEPLOYMENTS).where(*place).values(closed=packed))


async def prune_history(tx: Transaction, target: Target, keep: int) -> list[tuple[str, str]]:
    """Forgets old deployments of a target; returns (release id, build id) of releases that nothing refers to now."""
    place = (DEPLOYMENTS.c.component_id == target.component_id, DEPLOYMENTS.c.environment_id == target.environment_id)
    old = sa.delete(DEPLOYMENTS).where(*place, DEPLOYMENTS.c.generation <= target.generation - keep)
    if not (await tx.execute(old)).rowcount:
        return []
    return await _forget_unused_releases(tx, target.component_id)


async def components_in(tx: Transaction, organization_id: str, environment_id: str) -> list[str]:
    """Returns `project/component` of what runs in an environment or is still being removed from it."""
    place = (TARGETS.c.organization_id == organization_id, TARGETS.c.environment_id == environment_id)
    is_there = sa.or_(
        TARGETS.c.current_id.is_not(None), TARGETS.c.appended_id.is_not(None), TARGETS.c.removed_by.is_not(None)
    )
    query = sa.select(PROJECTS.c.name.label("project"), COMPONENTS.c.name).select_from(TARGETS)
    query = query.join(COMPONENTS, COMPONENTS.c.id == TARGETS.c.component_id)
    query = query.join(PROJECTS, PROJECTS.c.id == COMPONENTS.c.project_id)
    rows = await tx.all(query.where(*place, is_there).order_by(PROJECTS.c.name, COMPONENTS.c.name).limit(BATCH))
    return [f"{row.project}/{row.name}" for row in rows]


async def forget_environment(tx: Transaction, organization_id: str, environment_id: str) -> list[tuple[str, str]]:
    """Forgets what was deployed to an environment; returns (release id, build id) of releases nothing refers to now."""
    for table in (store_sealed.SEALED, TARGETS):
        place = (table.c.organization_id == organization_id, table.c.environment_id == environment_id)
        await tx.execute(sa.delete(table).where(*place))
    place = (DEPLOYMENTS.c.organization_id == organization_id, DEPLOYMENTS.c.environment_id == environment_id)
    gone = await tx.all(sa.delete(DEPLOYMENTS).where(*place).returning(DEPLOYMENTS.c.component_id))
    unused = []
    for component_id in sorted({str(row.component_id) for row in gone}):
        unused += await _forget_unused_releases(tx, component_id)
    return unused


async def _forget_unused_releases(tx: Transaction, component_id: str) -> list[tuple[str, str]]:
    is_used = sa.exists().where(DEPLOYMENTS.c.release_id == RELEASES.c.id)
    query = sa.select(RELEASES.c.id, RELEASES.c.build_id).where(RELEASES.c.component_id == component_id)
    unused = [(str(row.id), str(row.build_id)) for row in await tx.all(query.where(~is_used).limit(BATCH))]
    await tx.execute(sa.delete(RELEASES).where(RELEASES.c.id.in_([release for release, _ in unused])))
    return unused


async def target(tx: Transaction, organization_id: str, component_id: str, environment_id: str) -> Target | None:
    """Returns what is known of a component in an environment."""
    place = (TARGETS.c.component_id == component_id, TARGETS.c.environment_id == environment_id)
    row = await tx.one(sa.select(TARGETS).where(TARGETS.c.organization_id == organization_id, *place))
    return None if row is None else _target(row)


async def targets_of(tx: Transaction, organization_id: str, component_ids: Sequence[str]) -> list[Target]:
    """Returns everything that is known of components."""
    if not component_ids:
        return []
    place = (TARGETS.c.organization_id == organization_id, TARGETS.c.component_id.in_(component_ids))
    query = sa.select(TARGETS).where(*place).order_by(TARGETS.c.component_id, TARGETS.c.environment_id)
    return [_target(row) for row in await tx.all(query)]


async def targets_of_plane(tx: Transaction, plane_id: str) -> list[Target]:
    """Returns all targets of a data plane; for its reports, whatever the organization."""
    return [_target(row) for row in await tx.all(sa.select(TARGETS).where(TARGETS.c.plane_id == plane_id))]


async def target_by_key(tx: Transaction, plane_id: str, key: str) -> Target | None:
    """Returns the target of a document on a plane; for its reports, whatever the organization."""
    component_id, _, environment_id = key.partition("/")
    place = (TARGETS.c.component_id == component_id, TARGETS.c.environment_id == environment_id)
    row = await tx.one(sa.select(TARGETS).where(TARGETS.c.plane_id == plane_id, *place))
    return None if row is None else _target(row)


async def put_target(tx: Transaction, target: Target) -> None:
    """Adds a target, or replaces what is known of it."""
    values = {column.name: _scalar(getattr(target, column.name)) for column in TARGETS.columns} | {
        "addresses": json.dumps([[item.endpoint, item.host, item.path] for item in target.addresses]),
        "not_in_force": json.dumps(target.not_in_force),
        "trouble": None if target.trouble is None else _packed_trouble(target.trouble),
        "observed": None if target.observed is None else target.observed.wire(),
    }
    place = (TARGETS.c.component_id == target.component_id, TARGETS.c.environment_id == target.environment_id)
    changed = await tx.execute(sa.update(TARGETS).where(*place).values(**values))
    if changed.rowcount == 0:
        await tx.execute(sa.insert(TARGETS).values(**values))


async def undelivered(tx: Transaction) -> list[Target]:
    """Returns targets whose newest request is not in the plane's log yet."""
    is_new = sa.and_(
        TARGETS.c.current_id.is_not(None),
        sa.or_(TARGETS.c.appended_id.is_(None), TARGETS.c.appended_id != TARGETS.c.current_id),
    )
    is_removed = sa.and_(
        TARGETS.c.current_id.is_(None),
        TARGETS.c.removed_by.is_not(None),
        sa.or_(TARGETS.c.appended_id.is_(None), TARGETS.c.appended_id != TOMBSTONE),
    )
    query = sa.select(TARGETS).where(sa.or_(is_new, is_removed)).order_by(TARGETS.c.updated_at).limit(BATCH)
    return [_target(row) for row in await tx.all(query)]


async def removing(tx: Transaction) -> list[Target]:
    """Returns targets whose removal stands in the log and was not confirmed by a report."""
    gone = (TARGETS.c.current_id.is_(None), TARGETS.c.appended_id == TOMBSTONE)
    return [_target(row) for row in await tx.all(sa.select(TARGETS).where(*gone).limit(BATCH))]


async def release_gone_builds(tx: Transaction) -> None:
    """Lets go of builds that went with their component."""
    is_gone = ~sa.exists().where(BUILDS.c.id == HOLDS.c.row_id)
    await tx.execute(sa.delete(HOLDS).where(HOLDS.c.holder == BUILD_HOLDER, is_gone))


async def all_current(tx: Transaction, after: tuple[str, str]) -> list[Target]:
    """Returns targets that are to run, in pages by key."""
    is_after = sa.or_(
        TARGETS.c.component_id > after[0],
        sa.and_(TARGETS.c.component_id == after[0], TARGETS.c.environment_id > after[1]),
    )
    query = sa.select(TARGETS).where(TARGETS.c.current_id.is_not(None), is_after)
    rows = await tx.all(query.order_by(TARGETS.c.component_id, TARGETS.c.environment_id).limit(BATCH))
    return [_target(row) for row in rows]


async def of_deleted_components(tx: Transaction) -> list[Target]:
    """Returns targets that still are to run although their component is on its way out."""
    is_deleting = COMPONENTS.c.state == Lifecycle.DELETING.value
    query = sa.select(TARGETS).join(COMPONENTS, COMPONENTS.c.id == TARGETS.c.component_id)
    return [
        _target(row) for row in await tx.all(query.where(is_deleting, TARGETS.c.current_id.is_not(None)).limit(BATCH))
    ]


def _build_name() -> sa.ColumnElement[str]:
    return (BUILDS.c.component + "-" + sa.cast(BUILDS.c.number, sa.String)).label("build")


def _releases(organization_id: str) -> sa.Select[tuple[object, ...]]:
    query = sa.select(RELEASES, _build_name()).join(BUILDS, BUILDS.c.id == RELEASES.c.build_id)
    return query.where(RELEASES.c.organization_id == organization_id)


def _deployments(organization_id: str) -> sa.Select[tuple[object, ...]]:
    query = sa.select(DEPLOYMENTS, RELEASES.c.name.label("release"), RELEASES.c.build_id, _build_name())
    query = query.join(RELEASES, RELEASES.c.id == DEPLOYMENTS.c.release_id)
    query = query.join(BUILDS, BUILDS.c.id == RELEASES.c.build_id)
    return query.where(DEPLOYMENTS.c.organization_id == organization_id)


def _of_target(target: Target) -> sa.Select[tuple[object, ...]]:
    place = (DEPLOYMENTS.c.component_id == target.component_id, DEPLOYMENTS.c.environment_id == target.environment_id)
    return _deployments(target.organization_id).where(*place)


def _scalar(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _release(row: Row[tuple[object, ...]]) -> Release:
    return Release(**{name: getattr(row, name) for name in Release.__dataclass_fields__})


def _deployment(row: Row[tuple[object, ...]]) -> Deployment:
    values: dict[str, Any] = {name: getattr(row, name) for name in Deployment.__dataclass_fields__}
    closed = None if row.closed is None else tuple(_condition(item) for item in json.loads(row.closed))
    return Deployment(**(values | {"state": State(row.state), "action": Action(row.action), "closed": closed}))


def _target(row: Row[tuple[object, ...]]) -> Target:
    values: dict[str, Any] = {column.name: getattr(row, column.name) for column in TARGETS.columns}
    return Target(
        **(
            values
            | {
                "addresses": tuple(Address(*item) for item in json.loads(row.addresses)),
                "not_in_force": tuple(json.loads(row.not_in_force)),
                "trouble": None if row.trouble is None else _trouble(row.trouble),
                "observed": None if row.observed is None else ObservedWorkload.model_validate_json(row.observed),
            }
        )
    )


def _packed_trouble(trouble: Trouble) -> str:
    return json.dumps([trouble.reason, trouble.message, trouble.since.isoformat()])


def _trouble(text: str) -> Trouble:
    reason, message, since = json.loads(text)
    return Trouble(reason, message, datetime.datetime.fromisoformat(since))


def _packed_condition(condition: Condition) -> dict[str, object]:
    return {
        "type": condition.type.value,
        "status": condition.status.value,
        "reason": condition.reason,
        "message": condition.message,
        "generation": condition.generation,
        "since": condition.since.isoformat(),
        "logTail": condition.log_tail,
    }


def _condition(item: dict[str, Any]) -> Condition:
    return Condition(
        ConditionType(item["type"]),
        Status(item["status"]),
        item["reason"],
        item["message"],
        item["generation"],
        datetime.datetime.fromisoformat(item["since"]),
        tuple(item["logTail"]),
    )
