"""Builders: who builds, and what each can build."""

from __future__ import annotations

from typing import Any

import click

from minuet.cli import nouns, place, screen
from minuet.kernel.errors import NotFound


def _builders() -> list[dict[str, Any]]:
    server = place.api()
    return list(server.pages(server.organization("builders")))


def _find(builder: str) -> dict[str, Any]:
    for item in _builders():
        if builder in (item["name"], item["id"]):
            return item
    raise NotFound(f"there is no builder {builder}", code="BuilderNotFound", hint="`minuet list builders` shows them")


@click.command("builders")
@place.output_option
def list_(output: str) -> None:
    """List builders and when each was last seen.

    \b
    Example:
      minuet list builders
    """
    nouns.show_list(_builders(), output, ("name", "link", "version", "isolation", "seen"), _row)


def _row(builder: dict[str, Any]) -> tuple[object, ...]:
    link = "up" if builder["connected"] else "down"
    seen = f"{screen.ago(builder['seenAt'])} ago"
    return builder["name"], link, builder["version"], builder["isolation"], seen


@click.command("builder")
@click.argument("builder")
@place.output_option
def describe_(builder: str, output: str) -> None:
    """Describe a builder.

    \b
    Example:
      minuet describe builder default
    """
    nouns.show_page(_find(builder), output)


@click.command("builder")
@click.argument("builder")
@place.output_option
def get_(builder: str, output: str) -> None:
    """Print a builder.

    \b
    Example:
      minuet get builder default -o json
    """
    nouns.show_one(_find(builder), output)
