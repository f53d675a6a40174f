"""Routes of projects and components, and the dependencies that find them for slices above."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import Field, StrictBool, StrictInt

from minuet.control.catalog import model, service, store
from minuet.control.catalog.model import Component, Lifecycle, Project, ProjectType
from minuet.control.catalog.service import ComponentSpec, Rules
from minuet.control.identity.api import Scope, Scoped
from minuet.infra.database import Transaction
from minuet.kernel.clock import Clock
from minuet.kernel.names import MAX_DESCRIPTION, MAX_DISPLAY_NAME, MAX_NAME
from minuet.render.inputs import ComponentType
from minuet.web import etags, routing
from minuet.web.etags import IfMatch
from minuet.web.models import CONFIDENTIAL, Input, Listing, Model, Timestamp
from minuet.web.paging import Page, Paging
from minuet.web.routing import Tx

ProjectName = Annotated[str, Path(max_length=MAX_NAME, description="Name of the project.")]
ComponentName = Annotated[str, Path(max_length=MAX_NAME, description="Name of the component.")]
DisplayName = Annotated[str, Field(max_length=MAX_DISPLAY_NAME)]
RepositoryUrl = Annotated[str, Field(max_length=model.MAX_URL), CONFIDENTIAL]
"""People paste a user name and password with it."""

Description = Annotated[str, Field(max_length=MAX_DESCRIPTION)]

PROJECT = "/organizations/{organization}/projects/{project}"
COMPONENT = f"{PROJECT}/components/{{component}}"
"""Prefixes of the routes of slices above."""


class ProjectBody(Model):
    """A project."""

    id: str
    name: str
    display_name: str
    description: str
    type: ProjectType
    state: Lifecycle
    created_at: Timestamp
    updated_at: Timestamp


class ProjectInput(Input):
    """What a new project is to be."""

    name: str = Field(max_length=MAX_NAME, examples=["shop"])
    display_name: DisplayName | None = None
    description: Description = ""
    type: ProjectType = ProjectType.MONOREPO


class ProjectChange(Input):
    """What is to change about a project; what is left out stays."""

    display_name: DisplayName | None = None
    description: Description | None = None


class RepositoryBody(Model):
    """Where the source lies; without `url` it is the project's hosted repository."""

    url: str | None = None
    branch: str
    directory: str
    credential: str | None = None


class RepositoryInput(Input):
    """Where the source lies; without `url` it is the project's hosted repository."""

    url: RepositoryUrl | None = None
    branch: str = Field("main", max_length=model.MAX_BRANCH)
    directory: str = Field(".", max_length=model.MAX_PATH)
    credential: Annotated[str, Field(max_length=MAX_NAME)] | None = None


class EnvironmentSummary(Model):
    """A component in one environment, in a few words; delivery fills it."""

    environment: str
    phase: str
    url: str | None = None
    release: str | None = None
    deployment: str | None = None
    unknown_since: Timestamp | None = None


class ComponentBody(Model):
    """A component, and how it stands in each environment it was deployed to."""

    id: str
    project: str
    name: str
    display_name: str
    description: str
    type: ComponentType
    repository: RepositoryBody
    build_configs: dict[str, str]
    build_environment: dict[str, str]
    auto_build: bool
    auto_deploy: bool
    state: Lifecycle
    held_by: list[str] = Field(default_factory=list, description="What a deletion still waits for.")
    environments: list[EnvironmentSummary] = Field(default_factory=list)
    created_at: Timestamp
    updated_at: Timestamp


BuildConfigs = Annotated[dict[str, str | StrictInt], Field(max_length=50)]
BuildEnvironment = Annotated[dict[str, Annotated[str, CONFIDENTIAL]], Field(max_length=model.MAX_BUILD_VARIABLES)]


class ComponentInput(Input):
    """What a new component is to be."""

    name: str = Field(max_length=MAX_NAME, examples=["web"])
    display_name: DisplayName | None = None
    description: Description = ""
    type: ComponentType
    repository: RepositoryInput = Field(default_factory=lambda: RepositoryInput.model_validate({}))
    build_configs: BuildConfigs = Field(
        default_factory=dict, examples=[{"buildpack": "python", "buildPackLangVersion": "3.11"}]
    )
    build_environment: BuildEnvironment = Field(default_factory=dict)
    auto_build: StrictBool = True
    auto_deploy: StrictBool = False

    def spec(self) -> ComponentSpec:
        """Returns what the service takes."""
        return ComponentSpec(
            type=self.type,
            display_name=self.display_name or self.name,
            description=self.description,
            repository=self.repository.url,
            branch=self.repository.branch,
            directory=self.repository.directory,
            credential=self.repository.credential,
            build_configs=_texts(self.build_configs),
            build_environment=self.build_environment,
            auto_build=self.auto_build,
            auto_deploy=self.auto_deploy,
        )


class RepositoryChange(Input):
    """What is to change about the source; what is left out stays, `null` takes a credential or URL off."""

    url: RepositoryUrl | None = None
    branch: str | None = Field(None, max_length=model.MAX_BRANCH)
    directory: str | None = Field(None, max_length=model.MAX_PATH)
    credential: Annotated[str, Field(max_length=MAX_NAME)] | None = None


class ComponentChange(Input):
    """What is to change about a component; what is left out stays."""

    display_name: DisplayName | None = None
    description: Description | None = None
    repository: RepositoryChange | None = None
    build_configs: BuildConfigs | None = None
    build_environment: BuildEnvironment | None = None
    auto_build: StrictBool | None = None
    auto_deploy: StrictBool | None = None

    def applied_to(self, spec: ComponentSpec) -> ComponentSpec:
        """Returns the spec with what was given in place of what was."""
        given: dict[str, Any] = {
            name: value
            for name in ("display_name", "description", "build_environment", "auto_build", "auto_deploy")
            if (value := getattr(self, name)) is not None
        }
        if self.build_configs is not None:
            given["build_configs"] = _texts(self.build_configs)
        if self.repository is not None:
            source = self.repository
            given |= {name: value for name in ("branch", "directory") if (value := getattr(source, name)) is not None}
            if "url" in source.model_fields_set:
                given["repository"] = source.url
            if "credential" in source.model_fields_set:
                given["credential"] = source.credential
        return replace(spec, **given)


Summaries = Callable[[Transaction, str, Sequence[str]], Awaitable[dict[str, list[EnvironmentSummary]]]]
"""Returns how components (by id) stand in their environments; delivery gives it."""


async def _project_of(scope: Scoped, project: ProjectName, tx: Tx) -> Project:
    return await service.get_project(tx, scope.organization_id, project)


async def _component_of(scope: Scoped, project: ProjectName, component: ComponentName, tx: Tx) -> Component:
    return await service.get_component(tx, scope.organization_id, project, component)


CurrentProject = Annotated[Project, Depends(_project_of)]
"""The project of the path, in the caller's organization."""

CurrentComponent = Annotated[Component, Depends(_component_of)]
"""The component of the path, in the caller's organization; also one that is on its way out."""


def router(clock: Clock, rules: Rules, summaries: Summaries) -> APIRouter:
    """Returns the routes of this slice, below `/api/v1`."""
    routes = APIRouter()
    routes.include_router(_projects(clock))
    routes.include_router(_components(clock, rules, summaries))
    routes.include_router(_one_component(clock, rules, summaries))
    return routes


def _projects(clock: Clock) -> APIRouter:
    routes = routing.router("/organizations/{organization}/projects", tags=["projects"])

    @routes.post("", status_code=201)
    async def create_project(scope: Scoped, body: ProjectInput, tx: Tx) -> ProjectBody:
        """Makes a project."""
        made = await service.create_project(
            tx,
            scope.organization_id,
            body.name,
            display_name=body.display_name,
            description=body.description,
            kind=body.type,
            now=clock.now(),
        )
        return _project_body(made)

    @routes.get("")
    async def list_projects(scope: Scoped, page: Paging, tx: Tx) -> Listing[ProjectBody]:
        """Lists projects by name."""
        rows = await store.projects(tx, scope.organization_id, page.after, page.fetch)
        shown, following = page.cut(rows, lambda project: project.name)
        return Listing(items=[_project_body(project) for project in shown], next=following)

    @routes.get("/{project}")
    async def get_project(project: CurrentProject, response: Response) -> ProjectBody:
        """Shows one project."""
        body = _project_body(project)
        etags.put(response, body)
        return body

    @routes.patch("/{project}")
    async def change_project(
        project: CurrentProject, body: ProjectChange, tx: Tx, response: Response, if_match: IfMatch = None
    ) -> ProjectBody:
        """Changes display name and description; the name never changes."""
        etags.check(if_match, _project_body(project))
        changed = await service.change_project(
            tx, project, display_name=body.display_name, description=body.description, now=clock.now()
        )
        shown = _project_body(changed)
        etags.put(response, shown)
        return shown

    @routes.delete("/{project}", status_code=202)
    async def delete_project(project: CurrentProject, scope: Scoped, tx: Tx, if_match: IfMatch = None) -> ProjectBody:
        """Marks a project and all its components for deletion; it goes when nothing of it runs any more."""
        etags.check(if_match, _project_body(project))
        await service.delete_project(tx, project, confirmed_by=confirmed_by(scope), now=clock.now())
        return _project_body(replace(project, state=Lifecycle.DELETING))

    return routes


def _components(clock: Clock, rules: Rules, summaries: Summaries) -> APIRouter:
    routes = routing.router("/organizations/{organization}", tags=["components"])

    @routes.post("/projects/{project}/components", status_code=201)
    async def create_component(project: CurrentProject, body: ComponentInput, tx: Tx) -> ComponentBody:
        """Makes a component. Buildpack and version are checked against what the builders offer."""
        made = await service.create_component(tx, project, body.name, body.spec(), rules=rules, now=clock.now())
        return _component_body(made)

    @routes.get("/projects/{project}/components")
    async def list_components(
        project: CurrentProject,
        page: Paging,
        tx: Tx,
        type: ComponentType | None = None,  # noqa: A002 - name of the parameter
    ) -> Listing[ComponentBody]:
        """Lists the components of a project by name."""
        return await _listing(tx, page, project.organization_id, summaries, project=project.name, kind=type)

    @routes.get("/components")
    async def list_all_components(
        scope: Scoped,
        page: Paging,
        tx: Tx,
        project: Annotated[str | None, Query(max_length=MAX_NAME)] = None,
        type: ComponentType | None = None,  # noqa: A002 - name of the parameter
    ) -> Listing[ComponentBody]:
        """Lists the components of all projects, by project and name."""
        return await _listing(tx, page, scope.organization_id, summaries, project=project, kind=type)

    return routes


def _one_component(clock: Clock, rules: Rules, summaries: Summaries) -> APIRouter:
    routes = routing.router(COMPONENT, tags=["components"])

    async def _shown(tx: Transaction, component: Component) -> ComponentBody:
        environments = await summaries(tx, component.organization_id, [component.id])
        held = await store.holds(tx, component.organization_id, component.id)
        waits = [hold.reason for hold in held] if component.state is Lifecycle.DELETING else []
        return _component_body(component, environments.get(component.id, []), waits)

    @routes.get("")
    async def get_component(component: CurrentComponent, tx: Tx, response: Response) -> ComponentBody:
        """Shows one component with its environments. The ETag speaks of what PATCH changes."""
        etags.put(response, _component_body(component))
        return await _shown(tx, component)

    @routes.patch("")
    async def change_component(
        component: CurrentComponent, body: ComponentChange, tx: Tx, response: Response, if_match: IfMatch = None
    ) -> ComponentBody:
        """Changes a component; what runs is untouched until it is built and deployed again."""
        etags.check(if_match, _component_body(component))
        spec = body.applied_to(service.spec_of(component))
        changed = await service.change_component(tx, component, spec, rules=rules, now=clock.now())
        etags.put(response, _component_body(changed))
        return await _shown(tx, changed)

    @routes.delete("", status_code=202)
    async def delete_component(
        component: CurrentComponent, scope: Scoped, tx: Tx, if_match: IfMatch = None
    ) -> ComponentBody:
        """Marks a component for deletion: it is undeployed everywhere, and goes when nothing of it runs."""
        etags.check(if_match, _component_body(component))
        await service.delete_component(tx, component, confirmed_by=confirmed_by(scope), now=clock.now())
        return await _shown(tx, replace(component, state=Lifecycle.DELETING))

    return routes


def confirmed_by(scope: Scope) -> str:
    """Returns who confirmed something that cannot be undone, as tombstones carry it."""
    return f"{scope.caller.name} ({scope.caller.token_id})"


async def _listing(
    tx: Transaction,
    page: Page,
    organization_id: str,
    summaries: Summaries,
    *,
    project: str | None,
    kind: ComponentType | None,
) -> Listing[ComponentBody]:
    after = None if page.after is None else _place(page.after)
    rows = await store.components(tx, organization_id, project=project, kind=kind, after=after, limit=page.fetch)
    shown, following = page.cut(rows, lambda component: f"{component.project}/{component.name}")
    environments = await summaries(tx, organization_id, [component.id for component in shown])
    items = [_component_body(component, environments.get(component.id, [])) for component in shown]
    return Listing(items=items, next=following)


def _place(key: str) -> tuple[str, str]:
    project, _, component = key.partition("/")
    return project, component


def _texts(configs: dict[str, str | int]) -> dict[str, str]:
    return {key: str(value) for key, value in configs.items()}


def _project_body(project: Project) -> ProjectBody:
    return ProjectBody(
        id=project.id,
        name=project.name,
        display_name=project.display_name,
        description=project.description,
        type=project.type,
        state=project.state,
        created_at=project.created_at,
        updated_at=project.updated_at,
    )


def _component_body(
    component: Component, environments: Sequence[EnvironmentSummary] = (), held_by: Sequence[str] = ()
) -> ComponentBody:
    return ComponentBody(
        id=component.id,
        project=component.project,
        name=component.name,
        display_name=component.display_name,
        description=component.description,
        type=component.type,
        repository=RepositoryBody(
            url=component.repository,
            branch=component.branch,
            directory=component.directory,
            credential=component.credential,
        ),
        build_configs=dict(component.build_configs),
        build_environment=dict(component.build_environment),
        auto_build=component.auto_build,
        auto_deploy=component.auto_deploy,
        state=component.state,
        held_by=list(held_by),
        environments=list(environments),
        created_at=component.created_at,
        updated_at=component.updated_at,
    )
