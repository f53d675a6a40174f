"""Logs of applications and builds."""

from __future__ import annotations

from typing import Any

import click

from minuet.cli import place, screen
from minuet.cli.commands.build import build_path
from minuet.kernel.errors import invalid_field

_TYPES = ("component-application", "build")


@click.command()
@click.argument("name", required=False)
@place.project_option
@place.environment_option
@click.option("--component", help="The component, instead of the argument.")
@click.option("--type", "kind", type=click.Choice(_TYPES), default=_TYPES[0], show_default=True, help="Whose log.")
@click.option("--build-id", help="Which build; the newest if not given.")
@click.option("--deployment-track", hidden=True, default="main")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes.")
@click.option("--tail", type=click.IntRange(0, 10_000), default=200, show_default=True, help="How many lines.")
@click.option("--since", help="Only lines after this time, such as 2026-03-19T10:00:00Z.")
@click.option("--instance", help="Only lines of this instance.")
def logs(name: str | None, component: str | None, kind: str, **given: Any) -> None:
    """Show what an application wrote, or the log of a build.

    \b
    Examples:
      minuet logs web --env Production --follow
      minuet logs web --type build --build-id web-1
    """
    chosen = name or component
    if chosen is None:
        raise invalid_field("component", "is required", hint="name it: minuet logs web")
    if kind == "build":
        _build(chosen, given)
    else:
        _application(chosen, given)


def _application(component: str, given: dict[str, Any]) -> None:
    server = place.api()
    path = place.environment_path(server, given["project"], component, given["environment"], "logs")
    params = {name: given[name] for name in ("tail", "follow", "since", "instance")}
    for event, line in server.events(path, **params):
        if event == "line":
            if line.get("dropped"):
                screen.say(f"({line['dropped']} lines were dropped here)")
            screen.data(f"{line['time']} {line['instance']} {screen.clean(line['message'])}")


def _build(component: str, given: dict[str, Any]) -> None:
    server = place.api()
    build = given["build_id"]
    if build is None:
        newest = server.get(place.component_path(server, given["project"], component, "builds"), limit=1)["items"]
        if not newest:
            screen.say(f"{component} has not been built yet.")
            return
        build = newest[0]["id"]
    path = build_path(server, given["project"], component, build)
    for event, line in server.events(f"{path}/logs", follow=given["follow"]):
        if event == "line":
            screen.data(f"{line['time']} [{line.get('phase', '')}] {screen.clean(line['message'])}")
