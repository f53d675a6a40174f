"""Instances of a component in an environment, as its data plane last saw them."""

from __future__ import annotations

from typing import Any

import click

from minuet.cli import nouns, place, screen


def _instances(project: str | None, component: str, environment: str) -> list[dict[str, Any]]:
    server = place.api()
    state = server.get(place.environment_path(server, project, component, environment))
    found: list[dict[str, Any]] = state["instances"]
    return found


def _find(instance: str, project: str | None, component: str, environment: str) -> dict[str, Any]:
    found = _instances(project, component, environment)
    return nouns.named(found, "id", instance, "instance", f"{component} in {environment.lower()}")


@click.command("instances")
@place.project_option
@place.component_option
@place.environment_option
@place.output_option
def list_(project: str | None, component: str, environment: str, output: str) -> None:
    """List the instances of a component in an environment.

    \b
    Example:
      minuet list instances --component web --env Production
    """
    items = _instances(project, component, environment)
    nouns.show_list(items, output, ("id", "phase", "ready", "restarts", "started", "isolation"), _row, name="id")


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    ready = "ready" if item["ready"] else "no"
    started = screen.ago(item.get("startedAt"))
    return item["id"], item["phase"], ready, item["restarts"], started, item.get("isolation")


@click.command("instance")
@click.argument("instance")
@place.project_option
@place.component_option
@place.environment_option
@place.output_option
def describe_(instance: str, project: str | None, component: str, environment: str, output: str) -> None:
    """Describe an instance: how it runs, and why it last ended.

    \b
    Example:
      minuet describe instance i-1 --component web --env Production
    """
    nouns.show_page(_find(instance, project, component, environment), output, name="id")


@click.command("instance")
@click.argument("instance")
@place.project_option
@place.component_option
@place.environment_option
@place.output_option
def get_(instance: str, project: str | None, component: str, environment: str, output: str) -> None:
    """Print an instance.

    \b
    Example:
      minuet get instance i-1 --component web --env Production -o json
    """
    nouns.show_one(_find(instance, project, component, environment), output, name="id")
