"""Pipelines: ordered lists of environments."""

from __future__ import annotations

from typing import Any

import click

from minuet.cli import names, nouns, place, screen
from minuet.kernel.errors import invalid_field

_name_argument = click.argument("name", shell_complete=names.pipelines)


def _find(name: str) -> dict[str, Any]:
    server = place.api()
    return server.get(server.organization("pipelines", name))


def _order(environments: str) -> list[str]:
    order = [part.strip().lower() for part in environments.split(",")]
    if not all(order):
        raise invalid_field("environments", "names nothing between two commas", given=environments)
    return order


@click.command("pipeline")
@click.argument("name")
@click.option("--environments", required=True, help="In order, such as development,staging,production.")
def create_(name: str, environments: str) -> None:
    """Create a pipeline.

    \b
    Example:
      minuet create pipeline three --environments development,staging,production
    """
    server = place.api()
    order = _order(environments)
    server.post(server.organization("pipelines"), {"name": name, "environments": order})
    screen.say(f"Created the pipeline {name}: {' -> '.join(order)}.")


@click.command("pipelines")
@place.output_option
def list_(output: str) -> None:
    """List pipelines.

    \b
    Example:
      minuet list pipelines
    """
    server = place.api()
    items = server.pages(server.organization("pipelines"))
    nouns.show_list(items, output, ("name", "environments"), lambda p: (p["name"], " -> ".join(p["environments"])))


@click.command("pipeline")
@_name_argument
@place.output_option
def describe_(name: str, output: str) -> None:
    """Describe a pipeline.

    \b
    Example:
      minuet describe pipeline default
    """
    found = _find(name)
    shown = found | {"environments": " -> ".join(found["environments"])} if output == "table" else found
    nouns.show_page(shown, output)


@click.command("pipeline")
@_name_argument
@place.output_option
def get_(name: str, output: str) -> None:
    """Print a pipeline.

    \b
    Example:
      minuet get pipeline default -o json
    """
    nouns.show_one(_find(name), output)


@click.command("pipeline")
@_name_argument
@click.option("--environments", required=True, help="All of them, in order.")
def set_(name: str, environments: str) -> None:
    """Change the environments of a pipeline and their order.

    \b
    Example:
      minuet set pipeline default --environments development,staging,production
    """
    server = place.api()
    path, order = server.organization("pipelines", name), _order(environments)
    _, etag = server.tagged(path)
    server.patch(path, {"environments": order}, etag=etag)
    screen.say(f"The pipeline {name} is now: {' -> '.join(order)}.")


@click.command("pipeline")
@_name_argument
@place.yes_option
def delete_(name: str, yes: bool) -> None:
    """Delete a pipeline; its environments stay.

    \b
    Example:
      minuet delete pipeline three --yes
    """
    server = place.api()
    nouns.confirm(
        name,
        f"the pipeline {name}",
        lost="the way of promotion through its environments; the environments and what runs in them stay",
        yes=yes,
    )
    server.delete(server.organization("pipelines", name))
    screen.say(f"Deleted the pipeline {name}.")
