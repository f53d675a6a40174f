"""Use-cases of projects, components and credentials. Routes and slices above call it."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from minuet.control.catalog import model, store
from minuet.control.catalog.model import Component, Credential, CredentialKind, Lifecycle, Project, ProjectType
from minuet.control.tenancy.model import Organization
from minuet.infra.database import Transaction
from minuet.infra.events import Event
from minuet.infra.vault import Vault
from minuet.kernel.errors import Conflict, Exhausted, NotFound, invalid_field
from minuet.kernel.ids import new_id
from minuet.kernel.names import check_name, check_text
from minuet.kernel.secrets import Secret
from minuet.render.inputs import ComponentType

MAX_PROJECTS = 500
MAX_COMPONENTS = 1000
MAX_CREDENTIALS = 100
"""Per organization."""

MAX_TOKEN = 4096
MAX_DEPLOY_KEY = 16 * 1024

PROJECT_DELETING = "project.deleting"
COMPONENT_CREATED = "component.created"
COMPONENT_CHANGED = "component.changed"
COMPONENT_DELETING = "component.deleting"
COMPONENT_DELETED = "component.deleted"
"""Events about a project or component; their subject is its id."""

CheckBuild = Callable[[Transaction, ComponentType, Mapping[str, str]], Awaitable[None]]
"""Raises when no builder offers what the build configs ask for; builds gives it, because it knows the builders."""


@dataclass(frozen=True, slots=True)
class ComponentSpec:
    """What a component is to be; the routes fill it, on a change from what it was."""

    type: ComponentType
    display_name: str
    description: str = ""
    repository: str | None = None
    branch: str = "main"
    directory: str = "."
    credential: str | None = None
    build_configs: Mapping[str, str] = field(default_factory=dict)
    build_environment: Mapping[str, str] = field(default_factory=dict)
    auto_build: bool = True
    auto_deploy: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """What the composition root decides about components."""

    check_build: CheckBuild
    files_allowed: bool = False


async def create_project(
    tx: Transaction,
    organization_id: str,
    name: str,
    *,
    display_name: str | None,
    description: str,
    kind: ProjectType,
    now: datetime.datetime,
) -> Project:
    """Makes a project; raises `Conflict` if there is one of that name."""
    check_name("name", name)
    shown = check_text("displayName", display_name or name)
    existing = await store.project_by_name(tx, organization_id, name)
    if existing is not None:
        raise _taken("project", name, existing.state)
    if await store.count(tx, store.PROJECTS, organization_id) >= MAX_PROJECTS:
        raise Exhausted(f"an organization has at most {MAX_PROJECTS} projects")
    text = model.check_description(description)
    project = Project(new_id("prj"), organization_id, name, shown, text, kind, Lifecycle.ACTIVE, now, now)
    await store.insert_project(tx, project)
    tx.emit(Event("project.created", organization_id, project.id, {"name": name}))
    return project


async def get_project(tx: Transaction, organization_id: str, name: str) -> Project:
    """Returns a project; raises `NotFound`."""
    found = await store.project_by_name(tx, organization_id, name)
    if found is None:
        raise NotFound(
            f"there is no project {name}",
            code="ProjectNotFound",
            hint=f"`minuet list projects` shows what there is; `minuet create project {name}` makes it",
        )
    return found


async def change_project(
    tx: Transaction, project: Project, *, display_name: str | None, description: str | None, now: datetime.datetime
) -> Project:
    """Changes what people read; the name never changes."""
    _must_be_active("project", project.name, project.state)
    changed = replace(
        project,
        display_name=project.display_name if display_name is None else check_text("displayName", display_name),
        description=project.description if description is None else model.check_description(description),
        updated_at=now,
    )
    values = {"display_name": changed.display_name, "description": changed.description, "updated_at": now}
    await store.change_project(tx, project.organization_id, project.id, **values)
    return changed


async def delete_project(tx: Transaction, project: Project, *, confirmed_by: str, now: datetime.datetime) -> None:
    """Marks a project and its components for deletion; repeating it changes nothing."""
    if project.state is Lifecycle.DELETING:
        return
    values = {"state": Lifecycle.DELETING.value, "updated_at": now}
    await store.change_project(tx, project.organization_id, project.id, **values)
    tx.emit(Event(PROJECT_DELETING, project.organization_id, project.id, {"confirmed_by": confirmed_by}))
    for component_id in await store.mark_components_deleting(tx, project.organization_id, project.id, now):
        data = {"confirmed_by": confirmed_by}
        tx.emit(Event(COMPONENT_DELETING, project.organization_id, component_id, data))


async def create_component(
    tx: Transaction, project: Project, name: str, spec: ComponentSpec, *, rules: Rules, now: datetime.datetime
) -> Component:
    """Makes a component; raises `Invalid` for what is wrong in its spec, `Conflict` if the name is taken."""
    _must_be_active("project", project.name, project.state)
    check_name("name", name)
    existing = await store.component_by_name(tx, project.organization_id, project.name, name)
    if existing is not None:
        raise _taken("component", name, existing.state)
    if await store.count(tx, store.COMPONENTS, project.organization_id) >= MAX_COMPONENTS:
        raise Exhausted(f"an organization has at most {MAX_COMPONENTS} components")
    checked = await _checked(tx, project.organization_id, spec, rules)
    component = Component(
        id=new_id("cmp"),
        organization_id=project.organization_id,
        project_id=project.id,
        project=project.name,
        name=name,
        state=Lifecycle.ACTIVE,
        created_at=now,
        updated_at=now,
        **_fields(checked),
    )
    await store.insert_component(tx, component)
    data = {"project": project.name, "name": name}
    tx.emit(Event(COMPONENT_CREATED, project.organization_id, component.id, data))
    return component


async def get_component(tx: Transaction, organization_id: str, project: str, name: str) -> Component:
    """Returns a component; raises `NotFound` for it or its project."""
    found = await store.component_by_name(tx, organization_id, project, name)
    if found is None:
        await get_project(tx, organization_id, project)
        raise NotFound(
            f"there is no component {name} in project {project}",
            code="ComponentNotFound",
            hint=f"`minuet list components --project {project}` shows what there is",
        )
    return found


async def active_component(tx: Transaction, organization_id: str, project: str, name: str) -> Component:
    """Returns a component that is not on its way out; raises `Conflict` (`BeingDeleted`) for one that is."""
    found = await get_component(tx, organization_id, project, name)
    _must_be_active("component", name, found.state)
    return found


def spec_of(component: Component) -> ComponentSpec:
    """Returns what a component is, in the form that a change starts from."""
    return ComponentSpec(**{name: getattr(component, name) for name in ComponentSpec.__dataclass_fields__})


async def change_component(
    tx: Transaction, component: Component, spec: ComponentSpec, *, rules: Rules, now: datetime.datetime
) -> Component:
    """Changes everything but name and type; what runs is not touched until it is built and deployed again."""
    _must_be_active("component", component.name, component.state)
    if spec.type is not component.type:
        raise invalid_field("type", "never changes", given=spec.type, allowed=(component.type.value,))
    fields = _fields(await _checked(tx, component.organization_id, spec, rules, known=component.build_configs))
    await store.change_component(tx, component.organization_id, component.id, updated_at=now, **fields)
    tx.emit(Event(COMPONENT_CHANGED, component.organization_id, component.id, {}))
    return replace(component, updated_at=now, **fields)


async def delete_component(tx: Transaction, component: Component, *, confirmed_by: str, now: datetime.datetime) -> None:
    """Marks a component for deletion; it goes when nothing of it runs any more."""
    if component.state is Lifecycle.DELETING:
        return
    values = {"state": Lifecycle.DELETING.value, "updated_at": now}
    await store.change_component(tx, component.organization_id, component.id, **values)
    data = {"confirmed_by": confirmed_by}
    tx.emit(Event(COMPONENT_DELETING, component.organization_id, component.id, data))


async def create_credential(
    tx: Transaction,
    organization_id: str,
    name: str,
    *,
    kind: CredentialKind,
    username: str,
    value: Secret,
    vault: Vault,
    display_name: str | None = None,
    now: datetime.datetime,
) -> Credential:
    """Makes a credential; its value is sealed at once and never shown again."""
    check_name("name", name)
    shown = check_text("displayName", display_name or name)
    check_text("username", username, 200)
    _check_value(kind, value.reveal())
    if await store.credential_by_name(tx, organization_id, name) is not None:
        raise Conflict(f"there is a credential {name} already", code="AlreadyExists", hint="choose another name")
    if await store.count(tx, store.CREDENTIALS, organization_id) >= MAX_CREDENTIALS:
        raise Exhausted(f"an organization has at most {MAX_CREDENTIALS} credentials")
    sealed = vault.seal(value, model.credential_context(organization_id, name))
    credential = Credential(
        id=new_id("crd"),
        organization_id=organization_id,
        name=name,
        display_name=shown,
        kind=kind,
        username=username,
        sealed=sealed,
        created_at=now,
        updated_at=now,
    )
    await store.insert_credential(tx, credential)
    tx.emit(Event("credential.created", organization_id, credential.id, {"name": name}))
    return credential


async def get_credential(tx: Transaction, organization_id: str, name: str) -> Credential:
    """Returns a credential; raises `NotFound`."""
    found = await store.credential_by_name(tx, organization_id, name)
    if found is None:
        raise NotFound(f"there is no credential {name}", code="CredentialNotFound")
    return found


async def change_credential(
    tx: Transaction,
    credential: Credential,
    *,
    display_name: str | None,
    username: str | None,
    value: Secret | None,
    vault: Vault,
    now: datetime.datetime,
) -> Credential:
    """Replaces value, user name or display name; builds that start from now on use them. Name and kind never change."""
    if value is not None:
        _check_value(credential.kind, value.reveal())
    changed = replace(
        credential,
        display_name=credential.display_name if display_name is None else check_text("displayName", display_name),
        username=credential.username if username is None else check_text("username", username, 200),
        sealed=credential.sealed if value is None else vault.seal(value, credential.context),
        updated_at=now,
    )
    await store.change_credential(tx, changed)
    tx.emit(Event("credential.changed", changed.organization_id, changed.id, {"name": changed.name}))
    return changed


async def delete_credential(tx: Transaction, organization_id: str, name: str) -> None:
    """Removes a credential that no component uses."""
    found = await get_credential(tx, organization_id, name)
    users = await store.users_of_credential(tx, organization_id, name, 5)
    if users:
        raise Conflict(f"{', '.join(users)} use the credential {name}", code="InUse", hint="take it off them first")
    await store.delete_credential(tx, organization_id, name)
    tx.emit(Event("credential.deleted", organization_id, found.id, {"name": name}))


async def close_organization(tx: Transaction, organization: Organization) -> None:
    """Lets an organization go only when it has no projects and credentials; raises `Conflict` (`InUse`) otherwise."""
    for what, table in (("projects", store.PROJECTS), ("credentials", store.CREDENTIALS)):
        if await store.count(tx, table, organization.id):
            raise Conflict(f"{organization.name} has {what}", code="InUse", hint=f"delete its {what} first")


async def collect(tx: Transaction) -> int:
    """Removes what was deleted and is held by nobody any more; returns how many rows went."""
    components = await store.removable_components(tx)
    for organization_id, component_id in components:
        await store.delete_component(tx, organization_id, component_id)
        tx.emit(Event(COMPONENT_DELETED, organization_id, component_id, {}))
    projects = await store.removable_projects(tx)
    for organization_id, project_id in projects:
        await store.delete_project(tx, organization_id, project_id)
        tx.emit(Event("project.deleted", organization_id, project_id, {}))
    return len(components) + len(projects)


async def _checked(
    tx: Transaction,
    organization_id: str,
    spec: ComponentSpec,
    rules: Rules,
    known: Mapping[str, str] | None = None,
) -> ComponentSpec:
    """Returns the spec in its normal form; build configs that were checked before need no builder now."""
    configs = model.check_build_configs(spec.build_configs)
    url = spec.repository
    checked = replace(
        spec,
        display_name=check_text("displayName", spec.display_name),
        description=model.check_description(spec.description),
        repository=None if url is None else model.check_repository(url, files_allowed=rules.files_allowed),
        branch=model.check_branch(spec.branch),
        directory=model.check_directory(spec.directory),
        build_configs=configs,
        build_environment=model.check_build_environment(spec.build_environment),
    )
    if spec.credential is not None and await store.credential_by_name(tx, organization_id, spec.credential) is None:
        raise invalid_field("repository.credential", "is not a credential of this organization", given=spec.credential)
    if configs != known:
        await rules.check_build(tx, spec.type, configs)
    return checked


def _fields(spec: ComponentSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in ComponentSpec.__dataclass_fields__}


def _check_value(kind: CredentialKind, value: str) -> None:
    if kind is CredentialKind.TOKEN and not (0 < len(value) <= MAX_TOKEN and value.isprintable()):
        raise invalid_field("token", f"must have 1 to {MAX_TOKEN} printable characters")
    if kind is CredentialKind.DEPLOY_KEY and not (len(value) <= MAX_DEPLOY_KEY and "PRIVATE KEY-----" in value):
        raise invalid_field("deployKey", f"must be a private key in PEM form of at most {MAX_DEPLOY_KEY} characters")


def _taken(noun: str, name: str, state: Lifecycle) -> Conflict:
    if state is Lifecycle.DELETING:
        return Conflict(f"the {noun} {name} is being deleted", code="BeingDeleted", hint="try again when it is gone")
    return Conflict(f"there is a {noun} {name} already", code="AlreadyExists", hint="choose another name")


def _must_be_active(noun: str, name: str, state: Lifecycle) -> None:
    if state is Lifecycle.DELETING:
        raise Conflict(f"the {noun} {name} is being deleted", code="BeingDeleted")
