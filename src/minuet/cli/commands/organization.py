"""Organizations."""

from __future__ import annotations

from typing import Any

import click

from minuet.cli import nouns, place, screen
from minuet.client.api import path


def _find(name: str) -> dict[str, Any]:
    return place.api().get(path("organizations", name))


@click.command("organization")
@click.argument("name")
@click.option("--display-name", help="What people call it.")
def create_(name: str, display_name: str | None) -> None:
    """Create an organization (the operator's right); prints its owner's token once.

    \b
    Example:
      minuet create organization stark
    """
    server = place.api()
    made = server.post("/organizations", {"name": name} | ({"displayName": display_name} if display_name else {}))
    screen.say(f"Created the organization {made['name']}. Its owner's token, shown only now:")
    screen.data(made["ownerToken"])


@click.command("organizations")
@place.output_option
def list_(output: str) -> None:
    """List the organizations you can see.

    \b
    Example:
      minuet list organizations
    """
    items = place.api().pages("/organizations")
    nouns.show_list(items, output, ("name", "age"), lambda o: (o["name"], screen.ago(o["createdAt"])))


@click.command("organization")
@click.argument("name")
@place.output_option
def describe_(name: str, output: str) -> None:
    """Describe an organization.

    \b
    Example:
      minuet describe organization default
    """
    nouns.show_page(_find(name), output)


@click.command("organization")
@click.argument("name")
@place.output_option
def get_(name: str, output: str) -> None:
    """Print an organization.

    \b
    Example:
      minuet get organization default -o json
    """
    nouns.show_one(_find(name), output)


@click.command("organization")
@click.argument("name")
@place.yes_option
def delete_(name: str, yes: bool) -> None:
    """Delete an organization that has no projects and credentials any more (the operator's right).

    \b
    Example:
      minuet delete organization stark --yes
    """
    server = place.api()
    nouns.confirm(
        name,
        f"the organization {name}",
        lost="its environments, its pipelines and every token of its people",
        yes=yes,
    )
    server.delete(path("organizations", name))
    screen.say(f"Deleted the organization {name}.")
