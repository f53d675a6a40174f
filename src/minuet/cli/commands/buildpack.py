"""Buildpacks that the builders offer."""

from __future__ import annotations

import click

from minuet.cli import nouns, place


@click.command("buildpacks")
@place.output_option
def list_(output: str) -> None:
    """List buildpacks and the versions that can be had.

    \b
    Example:
      minuet list buildpacks
    """
    server = place.api()
    items = server.get(server.organization("buildpacks"))["items"]
    nouns.show_list(
        items,
        output,
        ("name", "versions", "needs"),
        lambda b: (b["name"], ", ".join(b["versions"]), ", ".join(b["required"])),
    )
