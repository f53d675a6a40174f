"""Data planes."""

from __future__ import annotations

from typing import Any

import click

from minuet.cli import nouns, place, screen


@click.command("data-planes")
@place.output_option
def list_(output: str) -> None:
    """List data planes and whether their links are up.

    \b
    Example:
      minuet list data-planes
    """
    server = place.api()
    items = server.pages(server.organization("data-planes"))
    nouns.show_list(items, output, ("name", "link", "isolation", "gateway"), _row)


def _row(plane: dict[str, Any]) -> tuple[object, ...]:
    link = "up" if plane["connected"] else f"down since {plane.get('since') or 'the start'}"
    return plane["name"], link, plane.get("isolation"), plane.get("gatewayUrl")


@click.command("data-plane")
@click.argument("name")
@place.output_option
def describe_(name: str, output: str) -> None:
    """Describe a data plane.

    \b
    Example:
      minuet describe data-plane default
    """
    server = place.api()
    found = server.get(server.organization("data-planes", name))
    if output != "table":
        nouns.show_one(found, output)
        return
    screen.fields((key, value) for key, value in found.items() if key != "conditions")
    screen.conditions(found.get("conditions") or ())


get_ = describe_
