"""Buildpacks that the builders offer."""

from __future__ import annotations

from typing import Any

import click

from minuet.cli import nouns, place
from minuet.kernel.errors import NotFound
from minuet.kernel.names import nearest


def _offers() -> list[dict[str, Any]]:
    server = place.api()
    items: list[dict[str, Any]] = server.get(server.organization("buildpacks"))["items"]
    return items


def _find(name: str) -> dict[str, Any]:
    """What is offered under a name; for several component types it may be offered differently."""
    offers = _offers()
    found = [offer for offer in offers if offer["name"] == name]
    if not found:
        known = sorted({offer["name"] for offer in offers})
        close = nearest(name, known)
        hint = (
            f"did you mean {close}?" if close else f"there are: {', '.join(known) or 'none, no builder has registered'}"
        )
        raise NotFound(f"no builder offers the buildpack {name}", code="BuildpackNotFound", hint=hint)
    return found[0] if len(found) == 1 else {"name": name, "offers": found}


@click.command("buildpacks")
@place.output_option
def list_(output: str) -> None:
    """List buildpacks and the versions that can be had.

    \b
    Example:
      minuet list buildpacks
    """
    nouns.show_list(
        _offers(),
        output,
        ("name", "versions", "needs"),
        lambda b: (b["name"], ", ".join(b["versions"]), ", ".join(b["required"])),
    )


@click.command("buildpack")
@click.argument("name")
@place.output_option
def describe_(name: str, output: str) -> None:
    """Describe a buildpack: its versions, and what it needs for which type of component.

    \b
    Example:
      minuet describe buildpack python
    """
    nouns.show_page(_find(name), output)


@click.command("buildpack")
@click.argument("name")
@place.output_option
def get_(name: str, output: str) -> None:
    """Print a buildpack.

    \b
    Example:
      minuet get buildpack python -o json
    """
    nouns.show_one(_find(name), output)
