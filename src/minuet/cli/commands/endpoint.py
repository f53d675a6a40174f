"""Endpoints of a component in an environment: what the build declares, and where it answers."""

from __future__ import annotations

from typing import Any

import click

from minuet.cli import nouns, place


def _endpoints(project: str | None, component: str, environment: str) -> list[dict[str, Any]]:
    """The endpoints of the build that is deployed, each with its address if it has one; those of nothing are none."""
    server = place.api()
    where = place.project_of(server, project, component)
    state = server.get(place.environment_path(server, where, component, environment))
    current = state.get("current")
    if not current:
        return []
    build = server.get(place.component_path(server, where, component, "builds", current["build"]))
    urls = {item["endpoint"]: item["url"] for item in state["urls"]}
    declared = [item | {"url": urls.pop(item["name"], None)} for item in build.get("endpoints") or ()]
    return [*declared, *({"name": name, "url": url} for name, url in urls.items())]


def _find(endpoint: str, project: str | None, component: str, environment: str) -> dict[str, Any]:
    found = _endpoints(project, component, environment)
    return nouns.named(found, "name", endpoint, "endpoint", f"{component} in {environment.lower()}")


@click.command("endpoints")
@place.project_option
@place.component_option
@place.environment_option
@place.output_option
def list_(project: str | None, component: str, environment: str, output: str) -> None:
    """List the endpoints of a component in an environment, and their addresses.

    \b
    Example:
      minuet list endpoints --component web --env Production
    """
    titles = ("name", "type", "port", "base path", "address")
    nouns.show_list(_endpoints(project, component, environment), output, titles, _row)


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    return item["name"], item.get("type"), item.get("port"), item.get("basePath"), item.get("url")


@click.command("endpoint")
@click.argument("endpoint")
@place.project_option
@place.component_option
@place.environment_option
@place.output_option
def describe_(endpoint: str, project: str | None, component: str, environment: str, output: str) -> None:
    """Describe an endpoint.

    \b
    Example:
      minuet describe endpoint http --component web --env Production
    """
    nouns.show_page(_find(endpoint, project, component, environment), output)


@click.command("endpoint")
@click.argument("endpoint")
@place.project_option
@place.component_option
@place.environment_option
@place.output_option
def get_(endpoint: str, project: str | None, component: str, environment: str, output: str) -> None:
    """Print an endpoint.

    \b
    Example:
      minuet get endpoint http --component web --env Production -o json
    """
    nouns.show_one(_find(endpoint, project, component, environment), output)
