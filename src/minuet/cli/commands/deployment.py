"""Deployments."""

from __future__ import annotations

from typing import Any

import click

from minuet.cli import names, nouns, place, progress, screen
from minuet.client.api import Api
from minuet.kernel.errors import invalid_field

WAIT_SECONDS = 300.0
_deployment_argument = click.argument("deployment", shell_complete=names.deployments)


def wait_options(command: Any) -> Any:
    """`--no-wait` and `--timeout`, for every verb that makes a deployment."""
    command = click.option("--no-wait", is_flag=True, help="Return at once.")(command)
    return click.option(
        "--timeout", type=nouns.SECONDS, default=WAIT_SECONDS, show_default=True, help="Seconds to wait."
    )(command)


def finish(server: Api, path: str, made: dict[str, Any], *, no_wait: bool, timeout: float) -> None:
    """Follows a deployment that was just made and ends with the address."""
    screen.say(f"Deploying {made['release']} of {made['component']} to {made['environment']} ({made['id']})")
    if no_wait:
        words = ("wait", "deployment", made["component"])
        screen.say(f"Next: {place.command_line(*words, project=made.get('project'), env=made['environment'])}")
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
@place.component_argument
@place.project_option
@place.environment_option
@click.option(
    "--build-id", shell_complete=names.builds, help="Build to deploy; the newest successful one if not given."
)
@click.option("--release", shell_complete=names.releases, help="Release to deploy instead of a build.")
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
    where = place.project_of(server, project, component)
    made = server.post(place.component_path(server, where, component, "deployments"), body)
    path = place.environment_path(server, where, component, environment)
    finish(server, path, made, no_wait=no_wait, timeout=timeout)


@click.command("deployments")
@place.project_option
@place.component_option
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
@_deployment_argument
@place.project_option
@place.component_option
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
    screen.fields(
        [
            ("Deployment", found["id"]),
            ("Environment", found["environment"]),
            ("Phase", found["phase"]),
            ("Release", found["release"]),
            ("Build", found["build"]),
            ("Configuration", f"revision {found['configRevision']}"),
            ("Replicas", str(found["replicas"])),
            ("Asked for by", f"{found['requestedBy']} ({found['action']}), {screen.ago(found['createdAt'])} ago"),
            ("Ready after", screen.between(found["createdAt"], found.get("readyAt"))),
        ]
    )
    screen.conditions(place.named_steps(found["conditions"], found), began=found["createdAt"])


@click.command("deployment")
@_deployment_argument
@place.project_option
@place.component_option
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
@place.component_argument
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
    where = place.project_of(server, project, component)
    nouns.confirm(
        component,
        f"the deployment of {component} (project {where}) in {environment.lower()}",
        lost="every instance there, its address and its logs; builds, releases and configuration stay",
        yes=yes,
    )
    server.delete(place.environment_path(server, where, component, environment))
    screen.say(f"Taking {component} out of {environment.lower()}.")


@click.command("deployment")
@place.component_argument
@place.project_option
@place.environment_option
@click.option("--for", "condition", default="ready", show_default=True, help="ready, condition=Type, or delete.")
@click.option("--timeout", type=nouns.SECONDS, default=WAIT_SECONDS, show_default=True, help="Seconds to wait.")
def wait_(component: str, project: str | None, environment: str, condition: str, timeout: float) -> None:
    """Wait until the newest deployment of a component is ready, until a condition of it is True, or until it is gone.

    \b
    Examples:
      minuet wait deployment web --env Production --for=ready
      minuet wait deployment web --env Production --for=condition=Healthy
      minuet wait deployment web --env Development --for=delete
    """
    wanted = None if condition.lower() == "delete" else _condition(condition)
    server = place.api()
    path = place.environment_path(server, project, component, environment)
    if wanted is None:
        progress.until_removed(server, path, timeout)
        screen.say(f"Nothing of {component} is left in {environment.lower()}.")
        return
    state = progress.wait_for(server, path, wanted, timeout)
    screen.say(f"{component} is {wanted} in {environment.lower()}: {state['current']['id']}")


def _condition(given: str) -> str:
    """`ready`, or `condition=Type`, in any case of letters."""
    from minuet.kernel.conditions import ConditionType

    known = {kind.value.lower(): kind.value for kind in ConditionType}
    word = given.lower().removeprefix("condition=")
    if word not in known:
        raise invalid_field(
            "for", "is not a condition", given=given, allowed=("ready", "condition=Healthy", "...", "delete")
        )
    return known[word]
