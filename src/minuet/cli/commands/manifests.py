"""Everything as code: `apply`, `export`, and the schema of their files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import click

from minuet.cli import applying, manifest, manifest_files, names, nouns, place, progress, screen
from minuet.cli.applying import Planned
from minuet.cli.commands.build import WAIT_SECONDS as BUILD_SECONDS
from minuet.cli.commands.deployment import WAIT_SECONDS
from minuet.cli.difference import Step
from minuet.client.api import Api
from minuet.kernel.errors import MinuetError


@click.command()
@click.option(
    "-f", "--file", "files", multiple=True, required=True, help="A file, a directory of files, or - (repeatable)."
)
@click.option("--dry-run", is_flag=True, help="Show the difference and change nothing.")
@click.option(
    "--prune",
    is_flag=True,
    help="Remove variables, files, build settings and health checks that the files do not name.",
)
@click.option("--build", is_flag=True, help="Build what a Deployment names and is not there, and deploy that.")
@click.option("--wait", is_flag=True, help="Wait until everything that is deployed is ready.")
@click.option("--timeout", type=nouns.SECONDS, default=WAIT_SECONDS, show_default=True, help="Seconds for each.")
def apply(files: tuple[str, ...], dry_run: bool, prune: bool, build: bool, wait: bool, timeout: float) -> None:
    """Make what files describe so; shows the difference, and changes nothing that is so already.

    Everything is checked before the first change. Deployments go on by themselves
    unless --wait is given; one that a later stage needs is waited for in any case.

    \b
    Examples:
      minuet apply -f shop.yaml --dry-run
      minuet export --project shop | minuet apply -f -
    """
    wanted = manifest_files.read(files)
    server = place.api()
    wishes = applying.Wishes(os.environ.get, prune=prune, dry=dry_run, build=build)
    steps = applying.plan(server, wanted, wishes)
    run = _Run(server, wait=wait, timeout=timeout)
    changed = 0
    for planned in steps:
        _tell(planned.step)
        if planned.step.changes:
            try:
                if not dry_run:
                    run.perform(planned)
            except MinuetError:
                screen.say(f"{changed} of {len(steps)} changed before {planned.step.title} failed.")
                raise
            changed += 1
    screen.say(f"{changed} of {len(wanted)} {'would change' if dry_run else 'changed'}.")
    run.tell_what_goes_on()


def _tell(step: Step) -> None:
    mark = "+" if step.creates else "~" if step.changes else "="
    screen.data(f"{mark} {step.title}")
    for line in (*step.lines, *step.kept):
        screen.data(f"    {line}")


@dataclass
class _Run:
    """One application of planned steps: the builds it made, and the deployments that still go on."""

    server: Api
    wait: bool
    timeout: float
    built: dict[tuple[str, str, str | None], str] = field(default_factory=dict)
    going_on: list[str] = field(default_factory=list)

    def perform(self, planned: Planned) -> None:
        """Does what one step needs."""
        item = planned.document
        match item:
            case manifest.Configuration():
                path = place.environment_path(self.server, item.project, item.component, item.environment)
                changed = self.server.patch(f"{path}/configuration", planned.step.body, etag=planned.etag)
                if changed.get("deployment"):
                    self._deployed(item, path, changed["deployment"], is_awaited=False)
            case manifest.Deployment():
                self._deploy(item, planned)
            case _:
                self._send(item, planned)

    def _send(self, item: Any, planned: Planned) -> None:
        parts = _collection(item)
        if planned.step.creates:
            self.server.post(self.server.organization(*parts), planned.step.body)
        else:
            self.server.patch(self.server.organization(*parts, item.name), planned.step.body, etag=planned.etag)

    def _deploy(self, item: manifest.Deployment, planned: Planned) -> None:
        path = place.environment_path(self.server, item.project, item.component, item.environment)
        last: dict[str, Any] = {}
        for verb, body in planned.step.verbs:
            if verb == "deploy":
                sent = body | {"build": self._build(item, body.get("build"))} if planned.builds_first else body
                below = place.component_path(self.server, item.project, item.component, "deployments")
                last = self.server.post(below, sent)
            else:
                last = self.server.post(f"{path}/{verb}", body)
        self._deployed(item, path, last["id"], is_awaited=planned.is_awaited)

    def _build(self, item: manifest.Deployment, wanted: str | None) -> str:
        """Makes the build that stands for the one that is not there; several stages share it."""
        key = (item.project, item.component, wanted)
        if key not in self.built:
            path = place.component_path(self.server, item.project, item.component, "builds")
            made = self.server.post(path)
            screen.say(f"Building {made['id']} ...")
            ended = progress.until_built(self.server, f"{path}/{made['id']}", made, BUILD_SECONDS)
            if ended["status"] != "Succeeded":
                raise progress.build_failed(ended)
            self.built[key] = made["id"]
        return self.built[key]

    def _deployed(self, item: Any, path: str, identifier: str, *, is_awaited: bool) -> None:
        screen.say(f"Deploying: {identifier}")
        if self.wait or is_awaited:
            progress.follow_deployment(self.server, path, identifier, self.timeout)
        else:
            words = ("wait", "deployment", item.component)
            self.going_on.append(place.command_line(*words, project=item.project, env=item.environment))

    def tell_what_goes_on(self) -> None:
        """Says what was not waited for, and what waits for it."""
        for line in self.going_on:
            screen.say(f"Not waited for; `{line}` waits.")


def _collection(item: Any) -> tuple[str, ...]:
    if isinstance(item, manifest.Component):
        return ("projects", item.project, "components")
    return (f"{item.kind.lower()}s",)


@click.command()
@click.option("--project", shell_complete=names.projects, help="Only this project.")
def export(project: str | None) -> None:
    """Write what is there as files would describe it; secrets by name only.

    \b
    Example:
      minuet export --project shop > shop.yaml
    """
    server = place.api()
    documents = [] if project else list(_shared(server))
    chosen = [project] if project else [item["name"] for item in server.pages(server.organization("projects"))]
    screen.documents([*documents, *(document for name in chosen for document in _exported(server, name))])


def _shared(server: Api) -> Iterator[dict[str, Any]]:
    """What the projects of an organization share. A credential says where its value is to come from elsewhere."""
    for item in server.pages(server.organization("environments")):
        yield _kept("Environment", item, ("name", "displayName", "dataPlane", "critical"))
    for item in server.pages(server.organization("pipelines")):
        yield _kept("Pipeline", item, ("name", "displayName", "environments"))
    for item in server.pages(server.organization("credentials")):
        variable = f"{item['name'].upper().replace('-', '_')}_{'TOKEN' if item['kind'] == 'token' else 'KEY'}"
        document = _kept("Credential", item | {"type": item["kind"]}, ("name", "type", "displayName", "username"))
        yield document | {"value": {"fromEnvironment": variable}}


def _exported(server: Api, project: str) -> Iterator[dict[str, Any]]:
    found = server.get(server.organization("projects", project))
    if found["state"] != "Active":
        return
    yield _kept("Project", found, ("name", "type", "displayName", "description"))
    for component in server.pages(server.organization("projects", project, "components")):
        if component["state"] == "Active":
            yield from _component(server, project, component)


def _component(server: Api, project: str, component: dict[str, Any]) -> Iterator[dict[str, Any]]:
    keys = ("name", "type", "displayName", "description", "repository", "buildConfigs", "buildEnvironment")
    source = {key: value for key, value in component["repository"].items() if value is not None}
    shown = _kept(None, component | {"repository": source}, (*keys, "autoBuild", "autoDeploy"))
    yield {"kind": "Component", "project": project} | shown
    deployed = {item["environment"] for item in component["environments"]}
    # A component may be configured where it was never deployed, so that every environment is looked at.
    for environment in server.pages(server.organization("environments")):
        where = {"project": project, "component": component["name"], "environment": environment["name"]}
        path = place.environment_path(server, project, component["name"], environment["name"])
        yield from _configuration(server.get(f"{path}/configuration"), where)
        current = server.get(path).get("current") if environment["name"] in deployed else None
        if current:
            yield {"kind": "Deployment", **where} | _kept(None, current, ("build", "replicas", "state"))


def _configuration(found: dict[str, Any], where: dict[str, str]) -> Iterator[dict[str, Any]]:
    entries = found["entries"]
    parts = {
        "variables": {entry["name"]: entry["value"] for entry in entries if entry["kind"] == "variable"},
        "files": {entry["mountPath"]: entry["value"] for entry in entries if entry["kind"] == "file"},
        "secrets": {entry["name"]: None for entry in entries if entry["kind"] == "secret"},
        "secretFiles": {entry["mountPath"]: None for entry in entries if entry["kind"] == "secret-file"},
        "health": {key: value for key, value in (found.get("health") or {}).items() if value is not None},
    }
    if any(parts.values()):
        yield {"kind": "Configuration", **where} | {key: value for key, value in parts.items() if value}


def _kept(kind: str | None, found: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    kept = {key: found[key] for key in keys if found.get(key) not in (None, "", {})}
    return ({"kind": kind} if kind else {}) | kept


@click.command()
def schema() -> None:
    """Print the JSON Schema of the files that `apply` reads.

    \b
    Example:
      minuet schema > minuet.schema.json
    """
    screen.document(manifest.schema(), "json")
