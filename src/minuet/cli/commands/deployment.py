"""Deployments."""

from __future__ import annotations

from typing import Any

import click

from minuet.cli import nouns, place, progress, screen
from minuet.client.api import Api

WAIT_SECONDS = 300.0


def wait_options(command: Any) -> Any:
    """`--no-wait` and `--timeout`, for every verb that makes a deployment."""
    command = click.option("--no-wait", is_flag=True, help="Return at once.")(command)
    return click.option("--timeout", type=float, default=WAIT_SECONDS, show_default=True, help="Seconds to wait.")(
        command
    )


def finish(server: Api, path: str, made: dict[str, Any], *, no_wait: bool, timeout: float) -> None:
    """Follows a deployment that was just made and ends with the address."""
    screen.say(f"Deploying {made['release']} of {made['component']} to {made['environment']} ({made['id']})")
    if no_wait:
        screen.data(made["id"])
        return
    state = progress.follow_deployment(server, path, made["id"], timeout)
    if made["state"] == "suspended":
        screen.say("Suspended.")
        return
    ready = state.get("url")
    for condition in state["conditions"]:
        if condition["type"] == "InForce" and condition["status"] == "False":
            screen.say(f"Note: {condition['message']}")
    if ready:
        screen.say("Ready:")
        for item in state["urls"]:
            screen.data(item["url"])
    else:
        screen.say("Ready; it has no public address.")


@click.command("deployment")
@click.argument("component")
@place.project_option
@place.environment_option
@click.option("--build-id", help="Build to deploy; the newest successful one if not given.")
@click.option("--release", help="Release to deploy instead of a build.")
@click.option("--replicas", type=int, help="How many instances.")
@wait_options
def create_(
    component: str,
    project: str | None,
    environment: str,
    build_id: str | None,
    release: str | None,
    replicas: int | None,
    no_wait: bool,
    timeout: float,
) -> None:
    """Deploy a build to an environment; the same command promotes it to the next one.

    \b
    Examples:
      minuet create deployment web --env Development
      minuet create deployment web --env Production --build-id web-1
    """
    server = place.api()
    chosen = {"build": build_id, "release": release, "replicas": replicas}
    body = {"environment": environment.lower()} | {key: value for key, value in chosen.items() if value is not None}
    made = server.post(place.component_path(server, project, component, "deployments"), body)
    path = place.environment_path(server, project, component, environment)
    finish(server, path, made, no_wait=no_wait, timeout=timeout)


@click.command("deployments")
@place.project_option
@click.option("--component", required=True, help="Component whose deployments to list.")
@click.option("--env", "environment", help="Only those of this environment.")
@place.output_option
def list_(project: str | None, component: str, environment: str | None, output: str) -> None:
    """List deployments, the newest first.

    \b
    Example:
      minuet list deployments --component web --env Production
    """
    server = place.api()
    path = place.component_path(server, project, component, "deployments")
    items = server.pages(path, environment=environment.lower() if environment else None)
    titles = ("id", "environment", "build", "action", "replicas", "phase", "by", "age")
    nouns.show_list(items, output, titles, _row, name="id")


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    age = screen.ago(item["createdAt"])
    return (
        item["id"],
        item["environment"],
        item["build"],
        item["action"],
        item["replicas"],
        item["phase"],
        item["requestedBy"],
        age,
    )


def _find(server: Api, project: str | None, component: str, deployment: str) -> dict[str, Any]:
    return server.get(place.component_path(server, project, component, "deployments", deployment))


@click.command("deployment")
@click.argument("deployment")
@place.project_option
@click.option("--component", required=True, help="Component it belongs to.")
@place.output_option
def describe_(deployment: str, project: str | None, component: str, output: str) -> None:
    """Describe a deployment with its conditions.

    \b
    Example:
      minuet describe deployment 20260319-1.1.1 --component web
    """
    server = place.api()
    found = _find(server, project, component, deployment)
    if output != "table":
        nouns.show_one(found, output, name="id")
        return
    names = (
        "id",
        "environment",
        "phase",
        "release",
        "build",
        "configRevision",
        "replicas",
        "action",
        "requestedBy",
        "createdAt",
        "readyAt",
    )
    screen.fields((name, found.get(name)) for name in names)
    screen.conditions(found["conditions"])


@click.command("deployment")
@click.argument("deployment")
@place.project_option
@click.option("--component", required=True, help="Component it belongs to.")
@place.output_option
def get_(deployment: str, project: str | None, component: str, output: str) -> None:
    """Print a deployment.

    \b
    Example:
      minuet get deployment 20260319-1.1.1 --component web -o json
    """
    server = place.api()
    nouns.show_one(_find(server, project, component, deployment), output, name="id")


@click.command("deployment")
@click.argument("component")
@place.project_option
@place.environment_option
@place.yes_option
def delete_(component: str, project: str | None, environment: str, yes: bool) -> None:
    """Take a component out of an environment.

    \b
    Example:
      minuet delete deployment web --env Development --yes
    """
    server = place.api()
    nouns.confirm("deployment", component, yes)
    server.delete(place.environment_path(server, project, component, environment))
    screen.say(f"Taking {component} out of {environment.lower()}.")


@click.command("deployment")
@click.argument("component")
@place.project_option
@place.environment_option
@click.option("--for", "condition", default="ready", show_default=True, help="ready, or condition=Type.")
@click.option("--timeout", type=float, default=WAIT_SECONDS, show_default=True, help="Seconds to wait.")
def wait_(component: str, project: str | None, environment: str, condition: str, timeout: float) -> None:
    """Wait until the newest deployment of a component is ready.

    \b
    Example:
      minuet wait deployment web --env Production --for=ready
    """
    server = place.api()
    path = place.environment_path(server, project, component, environment)
    state = server.get(path)
    current = state.get("current") or {}
    wanted = condition.partition("=")[2]
    if wanted and any(c["type"] == wanted and c["status"] == "True" for c in state["conditions"]):
        return
    if current.get("phase") != "Ready":
        progress.follow_deployment(server, path, current.get("id", ""), timeout)
    screen.say(f"{component} is ready in {environment.lower()}.")
