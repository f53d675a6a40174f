"""Data planes."""

from __future__ import annotations

from typing import Any

import click

from minuet.cli import names, nouns, place

_name_argument = click.argument("name", shell_complete=names.data_planes)


def _find(name: str) -> dict[str, Any]:
    server = place.api()
    return server.get(server.organization("data-planes", name))


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
@_name_argument
@place.output_option
def describe_(name: str, output: str) -> None:
    """Describe a data plane.

    \b
    Example:
      minuet describe data-plane default
    """
    nouns.show_page(_find(name), output)


@click.command("data-plane")
@_name_argument
@place.output_option
def get_(name: str, output: str) -> None:
    """Print a data plane.

    \b
    Example:
      minuet get data-plane default -o json
    """
    nouns.show_one(_find(name), output)
