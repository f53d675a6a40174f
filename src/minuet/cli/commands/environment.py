"""Environments."""

from __future__ import annotations

import click

from minuet.cli import nouns, place, screen
from minuet.cli.commands.component import show_environment


@click.command("environment")
@click.argument("name")
@click.option("--display-name", help="What people call it.")
@click.option("--data-plane", default="default", show_default=True, help="Data plane that runs it.")
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
    screen.say(f"Created the environment {name.lower()}; add it to a pipeline to promote to it.")


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
@click.argument("environment")
@click.option("--component", help="Show this component there.")
@place.project_option
@place.output_option
def describe_(environment: str, component: str | None, project: str | None, output: str) -> None:
    """Describe an environment, or a component in it.

    \b
    Example:
      minuet describe environment Production --component web
    """
    server = place.api()
    if component is None:
        nouns.show_one(server.get(server.organization("environments", environment.lower())), output)
        return
    state = server.get(place.environment_path(server, project, component, environment))
    if output == "table":
        show_environment(state)
    else:
        nouns.show_one(state, output, name="environment")


@click.command("environment")
@click.argument("environment")
@place.output_option
def get_(environment: str, output: str) -> None:
    """Print an environment.

    \b
    Example:
      minuet get environment production -o yaml
    """
    server = place.api()
    nouns.show_one(server.get(server.organization("environments", environment.lower())), output)
