"""Releases."""

from __future__ import annotations

import click

from minuet.cli import nouns, place, screen


@click.command("releases")
@place.project_option
@click.option("--component", required=True, help="Component whose releases to list.")
@place.output_option
def list_(project: str | None, component: str, output: str) -> None:
    """List releases, the newest first.

    \b
    Example:
      minuet list releases --component web
    """
    server = place.api()
    items = server.pages(place.component_path(server, project, component, "releases"))
    nouns.show_list(
        items, output, ("id", "build", "age"), lambda r: (r["id"], r["build"], screen.ago(r["createdAt"])), name="id"
    )


@click.command("release")
@click.argument("release")
@place.project_option
@click.option("--component", required=True, help="Component it belongs to.")
@place.output_option
def get_(release: str, project: str | None, component: str, output: str) -> None:
    """Print a release.

    \b
    Example:
      minuet get release 20260319-1 --component web
    """
    server = place.api()
    nouns.show_one(server.get(place.component_path(server, project, component, "releases", release)), output, name="id")


describe_ = get_
