"""Configuration: variables, secrets and files of a component in an environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from minuet.cli import config_sources, health_checks, nouns, place, screen
from minuet.client.api import Api
from minuet.kernel.errors import NotFound, invalid_field
from minuet.kernel.names import nearest

_no_deploy_option = click.option(
    "--no-deploy", is_flag=True, help="Keep it for the next deployment instead of applying it now."
)


@click.command("config")
@place.component_argument
@click.argument("variables", nargs=-1)
@place.project_option
@place.environment_option
@click.option(
    "--secret", "secrets", multiple=True, help="KEY to be asked for (or read from stdin), or KEY=value (repeatable)."
)
@click.option("--file", "files", multiple=True, help="/path/in/app=local-file")
@click.option("--secret-file", "secret_files", multiple=True, help="/path/in/app=local-file, never shown again.")
@click.option(
    "--from-env-file",
    "env_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A .env file of KEY=value lines.",
)
@_no_deploy_option
def set_(
    component: str,
    variables: tuple[str, ...],
    project: str | None,
    environment: str,
    secrets: tuple[str, ...],
    files: tuple[str, ...],
    secret_files: tuple[str, ...],
    env_file: Path | None,
    no_deploy: bool,
) -> None:
    """Set variables, secrets and files; a deployed component is deployed again with them.

    \b
    Examples:
      minuet set config web GREETING=hello --env Development
      minuet set config web --secret API_KEY --env Production < key.txt
      minuet set config web --from-env-file .env --env Development
      minuet set config web --file /app/config.json=./config.json
    """
    asked = [text for text in secrets if "=" not in text]
    entries = [config_sources.variable(text) for text in variables]
    entries += config_sources.env_file(env_file) if env_file else []
    entries += [config_sources.secret(text, alone=asked == [text]) for text in secrets]
    mounted = [config_sources.file(text, "file") for text in files]
    mounted += [config_sources.file(text, "secret-file") for text in secret_files]
    if not entries and not mounted:
        raise invalid_field("variables", "nothing to set was given", hint="for example GREETING=hello")
    given = [entry["name"] for entry in entries] + [entry["mountPath"] for entry in mounted]
    if twice := sorted({name for name in given if given.count(name) > 1}):
        raise invalid_field("variables", f"{', '.join(twice)} is given more than once")
    server = place.api()
    where = place.project_of(server, project, component)
    path = _path(server, where, component, environment)
    if mounted:
        there = server.get(path)["entries"]
        entries += [{"name": config_sources.entry_name(entry["mountPath"], there), **entry} for entry in mounted]
    tell(server.patch(path, {"set": entries, "apply": not no_deploy}), where, component, environment)


@click.command("config")
@place.component_argument
@click.argument("names", nargs=-1, required=True)
@place.project_option
@place.environment_option
@_no_deploy_option
def unset_(component: str, names: tuple[str, ...], project: str | None, environment: str, no_deploy: bool) -> None:
    """Remove variables and secrets by name, files by name or path.

    \b
    Examples:
      minuet unset config web GREETING --env Development
      minuet unset config web /app/config.json --env Development
    """
    server = place.api()
    where = place.project_of(server, project, component)
    path = _path(server, where, component, environment)
    chosen = list(names)
    if any(name.startswith("/") for name in names):
        there = server.get(path)["entries"]
        chosen = [_find(there, name)["name"] if name.startswith("/") else name for name in names]
    tell(server.patch(path, {"unset": chosen, "apply": not no_deploy}), where, component, environment)


@click.command("config")
@place.component_argument
@place.project_option
@place.environment_option
@place.output_option
def list_(component: str, project: str | None, environment: str, output: str) -> None:
    """List what a component is configured with, and its health check; secrets show only that they exist.

    \b
    Example:
      minuet list config web --env Production
    """
    _show_all(component, project, environment, output)


@click.command("config")
@place.component_argument
@click.argument("name", required=False)
@place.project_option
@place.environment_option
@place.output_option
def describe_(component: str, name: str | None, project: str | None, environment: str, output: str) -> None:
    """Describe one configured value by name or path, or all of a component in an environment.

    \b
    Example:
      minuet describe config web GREETING --env Production
    """
    if name is None:
        _show_all(component, project, environment, output)
    else:
        nouns.show_page(_find(_configuration(component, project, environment)["entries"], name), output)


@click.command("config")
@place.component_argument
@click.argument("name", required=False)
@place.project_option
@place.environment_option
@place.output_option
def get_(component: str, name: str | None, project: str | None, environment: str, output: str) -> None:
    """Print one configured value by name or path, or all of a component in an environment.

    \b
    Example:
      minuet get config web GREETING --env Production -o json
    """
    found = _configuration(component, project, environment)
    if name is not None:
        nouns.show_one(_find(found["entries"], name), output)
    elif output == "name":
        _show_all(component, project, environment, output)
    else:
        nouns.show_one(found, output)


def _show_all(component: str, project: str | None, environment: str, output: str) -> None:
    found = _configuration(component, project, environment)
    if output in ("json", "yaml"):
        screen.document(found, output)
        return
    nouns.show_list(found["entries"], output, ("name", "kind", "value", "path", "changed"), _row)
    if output == "table" and (check := health_checks.sentence(found.get("health"))):
        screen.data("")
        screen.data(f"Health check  {check}")


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    hidden = entry["kind"] in ("secret", "secret-file")
    value = "(secret)" if hidden else "(file)" if entry["kind"] == "file" else entry.get("value")
    return entry["name"], entry["kind"], value, entry.get("mountPath"), screen.ago(entry["updatedAt"])


def _find(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The entry of that name, or the file at that path; raises `NotFound` with the nearest."""
    for entry in entries:
        if name in (entry["name"], entry.get("mountPath")):
            return entry
    known = [word for entry in entries for word in (entry["name"], entry.get("mountPath")) if word]
    close = nearest(name, known)
    raise NotFound(f"{name} is not set", code="ConfigurationNotFound", hint=f"did you mean {close}?" if close else None)


def _path(server: Api, project: str | None, component: str, environment: str) -> str:
    return place.environment_path(server, project, component, environment, "configuration")


def _configuration(component: str, project: str | None, environment: str) -> dict[str, Any]:
    server = place.api()
    return server.get(_path(server, project, component, environment))


def tell(changed: dict[str, Any], project: str, component: str, environment: str) -> None:
    """Says which revision it is now, and what follows from it."""
    screen.say(f"Configuration of {component} in {environment.lower()} is now revision {changed['revision']}.")
    if changed.get("deployment"):
        following = place.command_line("wait", "deployment", component, project=project, env=environment)
        screen.say(f"Deploying it: {changed['deployment']}")
        screen.say(f"Next: {following}")
