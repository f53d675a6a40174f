"""Pipelines: ordered lists of environments."""

from __future__ import annotations

import click

from minuet.cli import nouns, place, screen


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
    order = [part.strip().lower() for part in environments.split(",")]
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
@click.argument("name")
@place.output_option
def get_(name: str, output: str) -> None:
    """Print a pipeline.

    \b
    Example:
      minuet get pipeline default -o json
    """
    server = place.api()
    nouns.show_one(server.get(server.organization("pipelines", name)), output)


describe_ = get_
