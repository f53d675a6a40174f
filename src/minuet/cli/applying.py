"""From manifests to steps: everything is looked up and checked here, before `commands/manifests.py` changes anything.

Separate from the differences, which are pure: this file asks the server. What
a document needs must be there or be made by a document before it; a deployment
needs its build, and a later stage needs that build to have been ready before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from minuet.cli import configuration_difference, deployment_difference, difference, manifest, place
from minuet.cli.difference import Json, Step, Variables
from minuet.client.api import Api
from minuet.kernel.errors import Conflict, NotFound, NotReady, invalid_field


@dataclass(frozen=True)
class Planned:
    """One document, what it needs, and the ETag of what that was worked out from.

    `builds_first` names a build that has to be made; `is_awaited` is true when a later
    deployment needs this one to be ready.
    """

    document: Any
    step: Step
    etag: str | None = None
    builds_first: bool = False
    is_awaited: bool = False


@dataclass(frozen=True)
class Wishes:
    """How the documents are to be taken."""

    environment: Variables
    prune: bool = False
    dry: bool = False
    build: bool = False


@dataclass
class _Known:
    """What there is, asked for once, and what the documents will have made."""

    server: Api
    made: set[tuple[str, ...]] = field(default_factory=set)

    def pipelines(self, documents: Iterable[Any]) -> list[Json]:
        given = {item.name: item.given() for item in documents if isinstance(item, manifest.Pipeline)}
        there = {item["name"]: item for item in self.server.pages(self.server.organization("pipelines"))}
        return list((there | given).values())

    def need(self, where: str, *parts: str) -> None:
        """Raises unless it is there or will be made; `parts` are those of its path."""
        if parts in self.made:
            return
        try:
            self.server.get(self.server.organization(*parts))
        except NotFound as error:
            raise NotFound(f"{where}: {error.message}", code=error.code, hint=error.hint) from error
        self.made.add(parts)


def plan(server: Api, documents: Sequence[Any], wishes: Wishes) -> list[Planned]:
    """Works out every step; raises for the first document that could not be made so."""
    known = _Known(server)
    _once(documents)
    pipelines = known.pipelines(documents)
    others = [_planned(known, item, wishes) for item in documents if not isinstance(item, manifest.Deployment)]
    wanted = [item for item in documents if isinstance(item, manifest.Deployment)]
    wanted.sort(key=lambda item: len(deployment_difference.way(pipelines, item.environment)))
    deployed: list[Planned] = []
    for item in wanted:
        deployed = _with_deployment(known, deployed, item, pipelines, wishes)
    deploying = {_target(item.document) for item in deployed if item.step.changes}
    return [_applied_once(item, deploying) for item in others] + deployed


def _once(documents: Sequence[Any]) -> None:
    seen: set[str] = set()
    for item in documents:
        name = f"{item.kind} {'/'.join(_target(item))}"
        if name in seen:
            raise invalid_field("kind", f"{name} is described twice")
        seen.add(name)


def _target(item: Any) -> tuple[str, ...]:
    names = (getattr(item, key, None) for key in ("project", "component", "name", "environment"))
    return tuple(name for name in names if name)


def _planned(known: _Known, item: Any, wishes: Wishes) -> Planned:
    server = known.server
    match item:
        case manifest.Environment():
            found, etag = _found(server, "environments", item.name)
            known.need(f"environment {item.name}", "data-planes", item.data_plane)
            known.made.add(("environments", item.name))
            return Planned(item, difference.environment(item, found), etag)
        case manifest.Pipeline():
            found, etag = _found(server, "pipelines", item.name)
            for name in item.environments:
                known.need(f"pipeline {item.name}", "environments", name)
            return Planned(item, difference.pipeline(item, found), etag)
        case manifest.Credential():
            found, etag = _found(server, "credentials", item.name)
            known.made.add(("credentials", item.name))
            return Planned(item, difference.credential(item, found, wishes.environment, dry=wishes.dry), etag)
        case manifest.Project():
            found, etag = _found(server, "projects", item.name)
            known.made.add(("projects", item.name))
            return Planned(item, difference.project(item, found), etag)
        case manifest.Component():
            return _component(known, item, wishes)
        case _:
            return _configuration(known, item, wishes)


def _component(known: _Known, item: manifest.Component, wishes: Wishes) -> Planned:
    where = f"component {item.project}/{item.name}"
    known.need(where, "projects", item.project)
    if item.repository.credential:
        known.need(where, "credentials", item.repository.credential)
    parts = ("projects", item.project, "components", item.name)
    found, etag = _found(known.server, *parts)
    known.made.add(parts)
    return Planned(item, difference.component(item, found, prune=wishes.prune), etag)


def _configuration(known: _Known, item: manifest.Configuration, wishes: Wishes) -> Planned:
    where = f"configuration of {item.project}/{item.component} in {item.environment}"
    known.need(where, "projects", item.project, "components", item.component)
    known.need(where, "environments", item.environment)
    found, etag = _found(known.server, *_parts(item), "configuration")
    step = configuration_difference.configuration(
        item, found or {"entries": []}, wishes.environment, prune=wishes.prune, dry=wishes.dry
    )
    return Planned(item, step, etag)


def _applied_once(item: Planned, deploying: set[tuple[str, ...]]) -> Planned:
    """A configuration that a deployment of the same run brings into force is not deployed by itself before."""
    if not isinstance(item.document, manifest.Configuration):
        return item
    body = item.step.body | {"apply": _target(item.document) not in deploying}
    return replace(item, step=replace(item.step, body=body))


def _with_deployment(
    known: _Known, before: list[Planned], item: manifest.Deployment, pipelines: list[Json], wishes: Wishes
) -> list[Planned]:
    """Adds the step of a deployment to those of earlier stages, of which one may now have to be awaited."""
    where = f"deployment of {item.project}/{item.component} in {item.environment}"
    known.need(where, "projects", item.project, "components", item.component)
    known.need(where, "environments", item.environment)
    found, _ = _found(known.server, *_parts(item))
    step = deployment_difference.deployment(item, found or {})
    verb, body = step.verbs[0] if step.verbs else ("", {})
    if verb != "deploy":
        return [*before, Planned(item, step)]
    there = _build(known.server, item, body.get("build"))
    if there is None and not wishes.build:
        raise _not_built(item, where, body.get("build"))
    if there is None:
        step = replace(step, lines=[*step.lines, "+ it is built first"])
    planned = Planned(item, step, builds_first=there is None)
    earlier = deployment_difference.way(pipelines, item.environment)[-1:]
    return [*_proving(known, before, item, earlier[0], there), planned] if earlier else [*before, planned]


def _build(server: Api, item: manifest.Deployment, name: str | None) -> str | None:
    """The build that is to run, if it is there and succeeded: the one named, else the newest."""
    builds, _ = _found(server, "projects", item.project, "components", item.component)
    if builds is None:
        return None
    path = server.organization("projects", item.project, "components", item.component, "builds")
    if name is None:
        return next((build["id"] for build in server.pages(path) if build["status"] == "Succeeded"), None)
    try:
        found = server.get(f"{path}/{name}")
    except NotFound:
        return None
    if found["status"] != "Succeeded":
        raise Conflict(
            f"the build {name} of {item.project}/{item.component} is {found['status']}", code="BuildNotDeployable"
        )
    return name


def _not_built(item: manifest.Deployment, where: str, name: str | None) -> NotReady:
    what = f"there is no build {name}" if name else "no build succeeded yet"
    return NotReady(
        f"{where}: {what} of {item.project}/{item.component}; nothing was changed",
        code="NothingBuilt",
        hint="`minuet apply --build -f <file>` builds it first",
    )


def _proving(
    known: _Known, before: list[Planned], item: manifest.Deployment, stage: str, build: str | None
) -> list[Planned]:
    """The steps before, in which the one that proves this build at the earlier stage is awaited.

    Raises `Conflict` when nothing proves it: it never was ready there, and is not deployed there now.
    """
    component = (item.project, item.component)
    for position, step in enumerate(before):
        at = step.document
        if (at.project, at.component, at.environment) == (*component, stage) and step.step.changes:
            return [*before[:position], replace(step, is_awaited=True), *before[position + 1 :]]
    path = known.server.organization("projects", item.project, "components", item.component, "deployments")
    there = known.server.pages(path, environment=stage) if build is not None else ()
    if any(each["build"] == build and each.get("readyAt") for each in there):
        return before
    words = ("create", "deployment", item.component)
    line = place.command_line(*words, project=item.project, env=stage, build_id=build)
    raise Conflict(
        f"{build or 'what is to be built'} has not been ready in {stage}, which comes before {item.environment}; "
        "nothing was changed",
        code="NotPromotable",
        hint=f"`{line}` first, or describe its deployment in {stage} in the same files",
    )


def _parts(item: Any) -> tuple[str, ...]:
    return ("projects", item.project, "components", item.component, "environments", item.environment)


def _found(server: Api, *parts: str) -> tuple[Json | None, str | None]:
    try:
        return server.tagged(server.organization(*parts))
    except NotFound:
        return None, None
