"""Environments."""

from __future__ import annotations

from typing import Any

import click

from minuet.cli import names, nouns, place, screen
from minuet.cli.commands.component import show_environment
from minuet.kernel.errors import invalid_field

_environment_argument = click.argument("environment", shell_complete=names.environments)


def _find(environment: str) -> dict[str, Any]:
    server = place.api()
    return server.get(server.organization("environments", environment.lower()))


@click.command("environment")
@click.argument("name")
@click.option("--display-name", help="What people call it.")
@click.option(
    "--data-plane",
    default="default",
    show_default=True,
    shell_complete=names.data_planes,
    help="Data plane that runs it.",
)
@click.option("--critical", is_flag=True, help="It is a production environment.")
def create_(name: str, display_name: str | None, data_plane: str, critical: bool) -> None:
    """Create an environment on a data plane.

    \b
    Example:
      minuet create environment staging
    """
    server = place.api()
    body = {
        "name": name.lower(),
        "displayName": display_name or name.capitalize(),
        "dataPlane": data_plane,
        "critical": critical,
    }
    server.post(server.organization("environments"), body)
    screen.say(
        f"Created the environment {name.lower()}. A pipeline has to lead to it before anything is deployed there."
    )
    first = next(iter(server.pages(server.organization("pipelines"))), None)
    if first is not None:
        order = ",".join((*first["environments"], name.lower()))
        screen.say(f"Next: {place.command_line('set', 'pipeline', first['name'], environments=order)}")


@click.command("environments")
@place.output_option
def list_(output: str) -> None:
    """List environments.

    \b
    Example:
      minuet list environments
    """
    server = place.api()
    items = server.pages(server.organization("environments"))
    nouns.show_list(
        items,
        output,
        ("name", "display name", "data plane", "critical"),
        lambda e: (e["name"], e["displayName"], e["dataPlane"], "yes" if e["critical"] else "no"),
    )


@click.command("environment")
@_environment_argument
@click.option("--component", shell_complete=names.components, help="Show this component there.")
@place.project_option
@place.output_option
def describe_(environment: str, component: str | None, project: str | None, output: str) -> None:
    """Describe an environment, or a component in it.

    \b
    Example:
      minuet describe environment Production --component web
    """
    if component is None:
        nouns.show_page(_find(environment), output)
        return
    server = place.api()
    state = server.get(place.environment_path(server, project, component, environment))
    if output == "table":
        show_environment(state)
    else:
        nouns.show_one(state, output, name="environment")


@click.command("environment")
@_environment_argument
@place.output_option
def get_(environment: str, output: str) -> None:
    """Print an environment.

    \b
    Example:
      minuet get environment production -o yaml
    """
    nouns.show_one(_find(environment), output)


@click.command("environment")
@_environment_argument
@click.option("--display-name", help="What people call it.")
@click.option("--critical/--not-critical", default=None, help="Whether it is a production environment.")
def set_(environment: str, display_name: str | None, critical: bool | None) -> None:
    """Change an environment; its name and data plane never change.

    \b
    Example:
      minuet set environment staging --display-name "Dress rehearsal"
    """
    body = {
        key: value for key, value in {"displayName": display_name, "critical": critical}.items() if value is not None
    }
    if not body:
        allowed = ("--display-name", "--critical", "--not-critical")
        raise invalid_field("environment", "nothing to change was given", allowed=allowed)
    server = place.api()
    path = server.organization("environments", environment.lower())
    _, etag = server.tagged(path)
    server.patch(path, body, etag=etag)
    screen.say(f"Changed the environment {environment.lower()}.")


@click.command("environment")
@_environment_argument
@place.yes_option
def delete_(environment: str, yes: bool) -> None:
    """Delete an environment in which nothing is deployed.

    \b
    Example:
      minuet delete environment staging --yes
    """
    server = place.api()
    name = environment.lower()
    nouns.confirm(
        name,
        f"the environment {name}",
        lost="what every component is configured with there, secrets included, and its history of deployments",
        yes=yes,
    )
    server.delete(server.organization("environments", name))
    screen.say(f"Deleted the environment {name}.")
