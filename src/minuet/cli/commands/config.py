"""Configuration: variables, secrets and files of a component in an environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from minuet.cli import config_sources, health_checks, nouns, place, screen
from minuet.kernel.errors import invalid_field


@click.command("config")
@click.argument("component")
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
@click.option("--no-deploy", is_flag=True, help="Keep it for the next deployment instead of applying it now.")
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
    entries += [config_sources.file(text, "file") for text in files]
    entries += [config_sources.file(text, "secret-file") for text in secret_files]
    if not entries:
        raise invalid_field("variables", "nothing to set was given", hint="for example GREETING=hello")
    names = [entry["name"] for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise invalid_field("variables", f"{', '.join(twice)} is given more than once")
    change(component, project, environment, {"set": entries, "apply": not no_deploy})


@click.command("config")
@click.argument("component")
@click.argument("names", nargs=-1, required=True)
@place.project_option
@place.environment_option
@click.option("--no-deploy", is_flag=True, help="Keep it for the next deployment instead of applying it now.")
def unset_(component: str, names: tuple[str, ...], project: str | None, environment: str, no_deploy: bool) -> None:
    """Remove variables, secrets or files by name.

    \b
    Example:
      minuet unset config web GREETING --env Development
    """
    change(component, project, environment, {"unset": list(names), "apply": not no_deploy})


@click.command("config")
@click.argument("component")
@place.project_option
@place.environment_option
@place.output_option
def list_(component: str, project: str | None, environment: str, output: str) -> None:
    """List what a component is configured with, and its health check; secrets show only that they exist.

    \b
    Example:
      minuet list config web --env Production
    """
    server = place.api()
    found = server.get(place.environment_path(server, project, component, environment, "configuration"))
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


def change(component: str, project: str | None, environment: str, body: dict[str, Any]) -> None:
    """Changes the configuration and tells what follows from it."""
    server = place.api()
    path = place.environment_path(server, project, component, environment, "configuration")
    changed = server.patch(path, body)
    screen.say(f"Configuration of {component} in {environment.lower()} is now revision {changed['revision']}.")
    if changed.get("deployment"):
        screen.say(f"Deploying it: {changed['deployment']}")
        screen.say(f"Next: minuet wait deployment {component} --env {environment}")
