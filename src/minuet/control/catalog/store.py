"""Projects, components, credentials and holds in the database. Every query is scoped by organization.

A hold is how a slice above keeps a row from going: it is put with the row that
needs it and released when that is cleaned up.
"""

from __future__ import annotations

import datetime
import enum
import json

import sqlalchemy as sa
from sqlalchemy.engine import Row

from minuet.control.catalog.model import Component, Credential, CredentialKind, Hold, Lifecycle, Project, ProjectType
from minuet.infra.database import Transaction
from minuet.infra.tables import Moment, metadata
from minuet.render.inputs import ComponentType

PROJECTS = sa.Table(
    "project",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), sa.ForeignKey("organization.id"), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("display_name", sa.String(120), nullable=False),
    sa.Column("description", sa.String(1000), nullable=False),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("updated_at", Moment, nullable=False),
    sa.UniqueConstraint("organization_id", "name"),
)

COMPONENTS = sa.Table(
    "component",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), sa.ForeignKey("organization.id"), nullable=False),
    sa.Column("project_id", sa.String(40), sa.ForeignKey("project.id"), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("display_name", sa.String(120), nullable=False),
    sa.Column("description", sa.String(1000), nullable=False),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("repository", sa.String(500), nullable=True),
    sa.Column("branch", sa.String(200), nullable=False),
    sa.Column("directory", sa.String(500), nullable=False),
    sa.Column("credential", sa.String(64), nullable=True),
    sa.Column("build_configs", sa.Text, nullable=False),
    sa.Column("build_environment", sa.Text, nullable=False),
    sa.Column("auto_build", sa.Boolean, nullable=False),
    sa.Column("auto_deploy", sa.Boolean, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("updated_at", Moment, nullable=False),
    sa.UniqueConstraint("project_id", "name"),
    sa.Index("ix_component_organization_id_state", "organization_id", "state"),
)

CREDENTIALS = sa.Table(
    "credential",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), sa.ForeignKey("organization.id"), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("display_name", sa.String(120), nullable=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("username", sa.String(200), nullable=False),
    sa.Column("sealed", sa.Text, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("updated_at", Moment, nullable=True),
    sa.UniqueConstraint("organization_id", "name"),
)

HOLDS = sa.Table(
    "hold",
    metadata,
    sa.Column("row_id", sa.String(40), primary_key=True),
    sa.Column("holder", sa.String(120), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("reason", sa.String(300), nullable=False),
)

COLLECT_LIMIT = 100
"""Rows that one round of cleaning up removes."""


async def existing_projects(tx: Transaction, project_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Returns those of the projects that there are, whosever they are: for the builder that hosts their repositories."""
    rows = await tx.all(sa.select(PROJECTS.c.id).where(PROJECTS.c.id.in_(project_ids)))
    return tuple(str(row.id) for row in rows)


async def insert_project(tx: Transaction, project: Project) -> None:
    """Adds a project; raises `IntegrityError` if the name was taken meanwhile."""
    values = {column.name: _scalar(getattr(project, column.name)) for column in PROJECTS.columns}
    await tx.execute(sa.insert(PROJECTS).values(**values))


async def project_by_name(tx: Transaction, organization_id: str, name: str) -> Project | None:
    """Returns the organization's project of that name, also one that is on its way out."""
    query = sa.select(PROJECTS).where(PROJECTS.c.organization_id == organization_id, PROJECTS.c.name == name)
    row = await tx.one(query)
    return None if row is None else _project(row)


async def projects(tx: Transaction, organization_id: str, after: str | None, limit: int) -> list[Project]:
    """Returns the organization's projects by name."""
    query = sa.select(PROJECTS).where(PROJECTS.c.organization_id == organization_id)
    if after is not None:
        query = query.where(PROJECTS.c.name > after)
    return [_project(row) for row in await tx.all(query.order_by(PROJECTS.c.name).limit(limit))]


async def change_project(tx: Transaction, organization_id: str, project_id: str, **values: object) -> None:
    """Sets columns of a project."""
    place = (PROJECTS.c.organization_id == organization_id, PROJECTS.c.id == project_id)
    await tx.execute(sa.update(PROJECTS).where(*place).values(**values))


async def insert_component(tx: Transaction, component: Component) -> None:
    """Adds a component; raises `IntegrityError` if the name was taken meanwhile."""
    values = {column.name: getattr(component, column.name) for column in COMPONENTS.columns}
    await tx.execute(sa.insert(COMPONENTS).values(**_packed(values)))


async def change_component(tx: Transaction, organization_id: str, component_id: str, **values: object) -> None:
    """Sets columns of a component."""
    place = (COMPONENTS.c.organization_id == organization_id, COMPONENTS.c.id == component_id)
    await tx.execute(sa.update(COMPONENTS).where(*place).values(**_packed(values)))


async def component_by_name(tx: Transaction, organization_id: str, project: str, name: str) -> Component | None:
    """Returns a component by the names of its project and itself, also one that is on its way out."""
    query = _components(organization_id).where(PROJECTS.c.name == project, COMPONENTS.c.name == name)
    row = await tx.one(query)
    return None if row is None else _component(row)


async def component_by_id(tx: Transaction, organization_id: str, component_id: str) -> Component | None:
    """Returns the organization's component with that id."""
    row = await tx.one(_components(organization_id).where(COMPONENTS.c.id == component_id))
    return None if row is None else _component(row)


async def components(
    tx: Transaction,
    organization_id: str,
    *,
    project: str | None = None,
    kind: ComponentType | None = None,
    after: tuple[str, str] | None = None,
    limit: int,
) -> list[Component]:
    """Returns components by project and name, filtered."""
    query = _components(organization_id)
    if project is not None:
        query = query.where(PROJECTS.c.name == project)
    if kind is not None:
        query = query.where(COMPONENTS.c.type == kind.value)
    if after is not None:
        same = sa.and_(PROJECTS.c.name == after[0], COMPONENTS.c.name > after[1])
        query = query.where(sa.or_(PROJECTS.c.name > after[0], same))
    rows = await tx.all(query.order_by(PROJECTS.c.name, COMPONENTS.c.name).limit(limit))
    return [_component(row) for row in rows]


async def hosted_components(tx: Transaction, organization_id: str, project_id: str, branch: str) -> list[Component]:
    """Returns the active components that are built from that branch of the project's hosted repository."""
    place = (COMPONENTS.c.project_id == project_id, COMPONENTS.c.repository.is_(None), COMPONENTS.c.branch == branch)
    is_active = COMPONENTS.c.state == Lifecycle.ACTIVE.value
    query = _components(organization_id).where(*place, is_active).order_by(COMPONENTS.c.name)
    return [_component(row) for row in await tx.all(query)]


async def count(tx: Transaction, table: sa.Table, organization_id: str) -> int:
    """Returns how many rows of a table the organization has."""
    query = sa.select(sa.func.count()).select_from(table).where(table.c.organization_id == organization_id)
    row = await tx.one(query)
    return 0 if row is None else int(row[0])  # type: ignore[call-overload]


async def insert_credential(tx: Transaction, credential: Credential) -> None:
    """Adds a credential."""
    values = {column.name: _scalar(getattr(credential, column.name)) for column in CREDENTIALS.columns}
    await tx.execute(sa.insert(CREDENTIALS).values(**values))


async def credential_by_name(tx: Transaction, organization_id: str, name: str) -> Credential | None:
    """Returns the organization's credential of that name."""
    place = (CREDENTIALS.c.organization_id == organization_id, CREDENTIALS.c.name == name)
    row = await tx.one(sa.select(CREDENTIALS).where(*place))
    return None if row is None else _credential(row)


async def credentials(tx: Transaction, organization_id: str, after: str | None, limit: int) -> list[Credential]:
    """Returns the organization's credentials by name."""
    query = sa.select(CREDENTIALS).where(CREDENTIALS.c.organization_id == organization_id)
    if after is not None:
        query = query.where(CREDENTIALS.c.name > after)
    return [_credential(row) for row in await tx.all(query.order_by(CREDENTIALS.c.name).limit(limit))]


async def change_credential(tx: Transaction, credential: Credential) -> None:
    """Writes down what can change about a credential."""
    place = (CREDENTIALS.c.organization_id == credential.organization_id, CREDENTIALS.c.id == credential.id)
    values = {name: getattr(credential, name) for name in ("display_name", "username", "sealed", "updated_at")}
    await tx.execute(sa.update(CREDENTIALS).where(*place).values(**values))


async def delete_credential(tx: Transaction, organization_id: str, name: str) -> None:
    """Removes a credential."""
    place = (CREDENTIALS.c.organization_id == organization_id, CREDENTIALS.c.name == name)
    await tx.execute(sa.delete(CREDENTIALS).where(*place))


async def users_of_credential(tx: Transaction, organization_id: str, name: str, limit: int) -> list[str]:
    """Returns `project/component` of components that name the credential."""
    query = _components(organization_id).where(COMPONENTS.c.credential == name).limit(limit)
    return [f"{row.project}/{row.name}" for row in await tx.all(query)]


async def put_hold(tx: Transaction, organization_id: str, hold: Hold) -> None:
    """Keeps a row from going; putting the same hold again changes nothing."""
    place = (HOLDS.c.row_id == hold.row_id, HOLDS.c.holder == hold.holder)
    if await tx.one(sa.select(HOLDS.c.row_id).where(*place)) is None:
        values = {"row_id": hold.row_id, "holder": hold.holder, "reason": hold.reason}
        await tx.execute(sa.insert(HOLDS).values(organization_id=organization_id, **values))


async def release_hold(tx: Transaction, organization_id: str, row_id: str, holder: str) -> None:
    """Lets a row go, as far as this holder is concerned."""
    place = (HOLDS.c.organization_id == organization_id, HOLDS.c.row_id == row_id, HOLDS.c.holder == holder)
    await tx.execute(sa.delete(HOLDS).where(*place))


async def holds(tx: Transaction, organization_id: str, row_id: str) -> list[Hold]:
    """Returns who holds a row."""
    place = (HOLDS.c.organization_id == organization_id, HOLDS.c.row_id == row_id)
    rows = await tx.all(sa.select(HOLDS).where(*place).order_by(HOLDS.c.holder).limit(COLLECT_LIMIT))
    return [Hold(row.row_id, row.holder, row.reason) for row in rows]


async def removable_components(tx: Transaction) -> list[tuple[str, str]]:
    """Returns organization and id of components that are on their way out and that nobody holds."""
    is_held = sa.exists().where(HOLDS.c.row_id == COMPONENTS.c.id)
    query = sa.select(COMPONENTS.c.organization_id, COMPONENTS.c.id)
    rows = await tx.all(query.where(COMPONENTS.c.state == Lifecycle.DELETING.value, ~is_held).limit(COLLECT_LIMIT))
    return [(str(row.organization_id), str(row.id)) for row in rows]


async def removable_projects(tx: Transaction) -> list[tuple[str, str]]:
    """Returns organization and id of projects that are on their way out, empty, and that nobody holds."""
    has_components = sa.exists().where(COMPONENTS.c.project_id == PROJECTS.c.id)
    is_held = sa.exists().where(HOLDS.c.row_id == PROJECTS.c.id)
    query = sa.select(PROJECTS.c.organization_id, PROJECTS.c.id)
    rows = await tx.all(
        query.where(PROJECTS.c.state == Lifecycle.DELETING.value, ~has_components, ~is_held).limit(COLLECT_LIMIT)
    )
    return [(str(row.organization_id), str(row.id)) for row in rows]


async def delete_component(tx: Transaction, organization_id: str, component_id: str) -> None:
    """Removes a component; rows of slices above that belong to it go with it by foreign key."""
    place = (COMPONENTS.c.organization_id == organization_id, COMPONENTS.c.id == component_id)
    await tx.execute(sa.delete(COMPONENTS).where(*place))


async def delete_project(tx: Transaction, organization_id: str, project_id: str) -> None:
    """Removes an empty project."""
    place = (PROJECTS.c.organization_id == organization_id, PROJECTS.c.id == project_id)
    await tx.execute(sa.delete(PROJECTS).where(*place))


async def mark_components_deleting(
    tx: Transaction, organization_id: str, project_id: str, now: datetime.datetime
) -> list[str]:
    """Marks the active components of a project; returns their ids."""
    place = (COMPONENTS.c.organization_id == organization_id, COMPONENTS.c.project_id == project_id)
    is_active = COMPONENTS.c.state == Lifecycle.ACTIVE.value
    marked = sa.update(COMPONENTS).where(*place, is_active).values(state=Lifecycle.DELETING.value, updated_at=now)
    return [str(row.id) for row in await tx.all(marked.returning(COMPONENTS.c.id))]


def _components(organization_id: str) -> sa.Select[tuple[object, ...]]:
    query = sa.select(COMPONENTS, PROJECTS.c.name.label("project"))
    query = query.join(PROJECTS, PROJECTS.c.id == COMPONENTS.c.project_id)
    return query.where(COMPONENTS.c.organization_id == organization_id)


def _packed(values: dict[str, object]) -> dict[str, object]:
    packed = {"build_configs", "build_environment"}
    return {
        name: json.dumps(value, sort_keys=True) if name in packed else _scalar(value) for name, value in values.items()
    }


def _scalar(value: object) -> object:
    return value.value if isinstance(value, enum.Enum) else value


def _project(row: Row[tuple[object, ...]]) -> Project:
    values = {column.name: getattr(row, column.name) for column in PROJECTS.columns}
    return Project(**(values | {"type": ProjectType(row.type), "state": Lifecycle(row.state)}))


def _component(row: Row[tuple[object, ...]]) -> Component:
    values = {column.name: getattr(row, column.name) for column in COMPONENTS.columns}
    unpacked: dict[str, object] = {
        "project": row.project,
        "type": ComponentType(row.type),
        "state": Lifecycle(row.state),
        "build_configs": json.loads(row.build_configs),
        "build_environment": json.loads(row.build_environment),
    }
    return Component(**(values | unpacked))


def _credential(row: Row[tuple[object, ...]]) -> Credential:
    values = {column.name: getattr(row, column.name) for column in CREDENTIALS.columns}
    since = {"display_name": row.display_name or row.name, "updated_at": row.updated_at or row.created_at}
    return Credential(**(values | since | {"kind": CredentialKind(row.kind)}))
