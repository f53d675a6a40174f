"""Organizations."""

from __future__ import annotations

import click

from minuet.cli import nouns, place, screen


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
def get_(name: str, output: str) -> None:
    """Print an organization.

    \b
    Example:
      minuet get organization default -o json
    """
    nouns.show_one(place.api().get(f"/organizations/{name}"), output)


describe_ = get_
