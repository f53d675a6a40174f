"""Everything as code: `apply`, `export`, and the schema of their files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import click

from minuet.cli import difference, manifest, place, screen
from minuet.cli.difference import Step
from minuet.client.api import Api
from minuet.kernel.errors import NotFound


@click.command()
@click.option(
    "-f", "--file", "files", multiple=True, required=True, help="A file, a directory of files, or - (repeatable)."
)
@click.option("--dry-run", is_flag=True, help="Show the difference and change nothing.")
@click.option(
    "--prune", is_flag=True, help="Remove variables, files and the health check that a Configuration does not name."
)
def apply(files: tuple[str, ...], dry_run: bool, prune: bool) -> None:
    """Make what files describe so; shows the difference, and changes nothing that is so already.

    \b
    Examples:
      minuet apply -f shop.yaml --dry-run
      minuet export --project shop | minuet apply -f -
    """
    wanted = manifest.read(files)
    server = place.api()
    changed = 0
    for item in wanted:
        step = _step(server, item, dry_run=dry_run, prune=prune)
        screen.data(f"{_mark(step)} {step.title}")
        for line in (*step.lines, *step.kept):
            screen.data(f"    {line}")
        if step.changes:
            changed += 1
            if not dry_run:
                _perform(server, item, step)
    verb = "would change" if dry_run else "changed"
    screen.say(f"{changed} of {len(wanted)} {verb}.")


def _mark(step: Step) -> str:
    return "+" if step.creates else "~" if step.changes else "="


def _step(server: Api, item: Any, *, dry_run: bool, prune: bool) -> Step:
    match item:
        case manifest.Project():
            return difference.project(item, _found(server, server.organization("projects", item.name)))
        case manifest.Component():
            return difference.component(item, _found(server, place.component_path(server, item.project, item.name)))
        case manifest.Configuration():
            found = _found(server, f"{_environment(server, item)}/configuration")
            values = (lambda _name: "-") if dry_run else os.environ.get
            return difference.configuration(item, found or {"entries": []}, values, prune=prune)
        case _:
            return difference.deployment(item, _found(server, _environment(server, item)) or {})


def _perform(server: Api, item: Any, step: Step) -> None:
    match item:
        case manifest.Project():
            path = server.organization("projects")
            _send(server, path, server.organization("projects", item.name), step)
        case manifest.Component():
            path = server.organization("projects", item.project, "components")
            _send(server, path, place.component_path(server, item.project, item.name), step)
        case manifest.Configuration():
            server.patch(f"{_environment(server, item)}/configuration", step.body)
        case _:
            made = server.post(place.component_path(server, item.project, item.component, "deployments"), step.body)
            screen.say(f"Deploying: {made['id']}")


def _send(server: Api, collection: str, one: str, step: Step) -> None:
    if step.creates:
        server.post(collection, step.body)
    else:
        server.patch(one, step.body)


def _environment(server: Api, item: Any) -> str:
    return place.environment_path(server, item.project, item.component, item.environment)


def _found(server: Api, path: str) -> dict[str, Any] | None:
    try:
        return server.get(path)
    except NotFound:
        return None


@click.command()
@click.option("--project", help="Only this project.")
def export(project: str | None) -> None:
    """Write what is there as files would describe it; secrets by name only.

    \b
    Example:
      minuet export --project shop > shop.yaml
    """
    server = place.api()
    paths = [project] if project else [item["name"] for item in server.pages(server.organization("projects"))]
    documents = [document for name in paths for document in _exported(server, name)]
    screen.documents(documents)


def _exported(server: Api, project: str) -> Iterator[dict[str, Any]]:
    found = server.get(server.organization("projects", project))
    yield _kept("Project", found, ("name", "displayName", "description"))
    for component in server.pages(server.organization("projects", project, "components")):
        names = ("name", "type", "displayName", "description", "repository", "buildConfigs", "buildEnvironment")
        yield {"kind": "Component", "project": project} | _kept(None, component, (*names, "autoBuild", "autoDeploy"))
        for environment in component["environments"]:
            where = {"project": project, "component": component["name"], "environment": environment["environment"]}
            path = place.environment_path(server, project, component["name"], environment["environment"])
            yield from _configuration(server.get(f"{path}/configuration"), where)
            current = server.get(path).get("current") or {}
            if current:
                yield {"kind": "Deployment", **where, "build": current["build"], "replicas": current["replicas"]}


def _configuration(found: dict[str, Any], where: dict[str, str]) -> Iterator[dict[str, Any]]:
    entries = found["entries"]
    if not entries and not found.get("health"):
        return
    document: dict[str, Any] = {"kind": "Configuration", **where}
    variables = {entry["name"]: entry["value"] for entry in entries if entry["kind"] == "variable"}
    files = {entry["mountPath"]: entry["value"] for entry in entries if entry["kind"] == "file"}
    secrets = {entry["name"]: None for entry in entries if entry["kind"] == "secret"}
    check = {key: value for key, value in (found.get("health") or {}).items() if value is not None}
    parts = (("variables", variables), ("files", files), ("secrets", secrets), ("health", check))
    yield document | {key: value for key, value in parts if value}


def _kept(kind: str | None, found: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    kept = {name: found[name] for name in names if found.get(name) not in (None, "", {})}
    return ({"kind": kind} if kind else {}) | kept


@click.command()
def schema() -> None:
    """Print the JSON Schema of the files that `apply` reads.

    \b
    Example:
      minuet schema > minuet.schema.json
    """
    screen.document(manifest.schema(), "json")
