"""Releases."""

from __future__ import annotations

from typing import Any

import click

from minuet.cli import names, nouns, place, screen

_release_argument = click.argument("release", shell_complete=names.releases)


def _find(release: str, project: str | None, component: str) -> dict[str, Any]:
    server = place.api()
    return server.get(place.component_path(server, project, component, "releases", release))


@click.command("releases")
@place.project_option
@place.component_option
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
@_release_argument
@place.project_option
@place.component_option
@place.output_option
def describe_(release: str, project: str | None, component: str, output: str) -> None:
    """Describe a release.

    \b
    Example:
      minuet describe release 20260319-1 --component web
    """
    nouns.show_page(_find(release, project, component), output, name="id")


@click.command("release")
@_release_argument
@place.project_option
@place.component_option
@place.output_option
def get_(release: str, project: str | None, component: str, output: str) -> None:
    """Print a release.

    \b
    Example:
      minuet get release 20260319-1 --component web
    """
    nouns.show_one(_find(release, project, component), output, name="id")
