"""Verbs on a component in an environment: roll back, redeploy, scale, suspend, resume, open."""

from __future__ import annotations

from typing import Any

import click

from minuet.cli import place, screen
from minuet.cli.commands.deployment import finish, wait_options
from minuet.kernel.errors import NotReady


def _run(
    verb: str, component: str, project: str | None, environment: str, body: dict[str, Any], **waiting: Any
) -> None:
    server = place.api()
    path = place.environment_path(server, project, component, environment)
    finish(server, path, server.post(f"{path}/{verb}", body), **waiting)


@click.command()
@place.component_argument
@place.project_option
@place.environment_option
@click.option("--to", help="Release or deployment to return to; the last good one before if not given.")
@wait_options
def rollback(component: str, project: str | None, environment: str, to: str | None, **waiting: Any) -> None:
    """Bring back an earlier release with its endpoints and configuration.

    \b
    Example:
      minuet rollback web --env Production
    """
    _run("rollback", component, project, environment, {"to": to} if to else {}, **waiting)


@click.command()
@place.component_argument
@place.project_option
@place.environment_option
@wait_options
def redeploy(component: str, project: str | None, environment: str, **waiting: Any) -> None:
    """Start the same release afresh, with the latest configuration.

    \b
    Example:
      minuet redeploy web --env Development
    """
    _run("redeploy", component, project, environment, {}, **waiting)


@click.command()
@place.component_argument
@place.project_option
@place.environment_option
@click.option("--replicas", type=int, required=True, help="How many instances.")
@wait_options
def scale(component: str, project: str | None, environment: str, replicas: int, **waiting: Any) -> None:
    """Change how many instances run; nothing is restarted.

    \b
    Example:
      minuet scale web --env Production --replicas 3
    """
    _run("scale", component, project, environment, {"replicas": replicas}, **waiting)


@click.command()
@place.component_argument
@place.project_option
@place.environment_option
@wait_options
def suspend(component: str, project: str | None, environment: str, **waiting: Any) -> None:
    """Stop a component in an environment; its address answers 503.

    \b
    Example:
      minuet suspend web --env Development
    """
    _run("suspend", component, project, environment, {}, **waiting)


@click.command()
@place.component_argument
@place.project_option
@place.environment_option
@wait_options
def resume(component: str, project: str | None, environment: str, **waiting: Any) -> None:
    """Start a suspended component again.

    \b
    Example:
      minuet resume web --env Development
    """
    _run("resume", component, project, environment, {}, **waiting)


@click.command("open")
@place.component_argument
@place.project_option
@place.environment_option
def open_component(component: str, project: str | None, environment: str) -> None:
    """Open a component's address in the browser, and print it.

    \b
    Example:
      minuet open web --env Development
    """
    server = place.api()
    where = place.project_of(server, project, component)
    url = server.get(place.environment_path(server, where, component, environment)).get("url")
    if not url:
        following = place.command_line("create", "deployment", component, project=where, env=environment)
        raise NotReady(f"{component} has no public address in {environment.lower()}", hint=f"`{following}` deploys it")
    screen.data(url)
    if screen.is_terminal() and url.startswith(("http://", "https://")):
        click.launch(url)
