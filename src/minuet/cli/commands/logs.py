"""Logs of applications and builds."""

from __future__ import annotations

import datetime
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import click
from click.core import ParameterSource

from minuet.cli import names, place, screen
from minuet.cli.commands.build import build_path
from minuet.client import logs as reader
from minuet.kernel.errors import NotFound, invalid_field

_TYPES = ("component-application", "build")
_SPAN = re.compile(r"(\d{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command()
@click.argument("name", required=False, shell_complete=names.components)
@place.project_option
@place.environment_option
@click.option("--component", shell_complete=names.components, help="The component, instead of the argument.")
@click.option("--type", "kind", type=click.Choice(_TYPES), default=_TYPES[0], show_default=True, help="Whose log.")
@click.option("--build-id", shell_complete=names.builds, help="Which build; the newest if not given.")
@click.option(
    "--deployment-track", type=click.Choice(["main"]), default="main", help="Only main: components have one track."
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes.")
@click.option(
    "--tail",
    type=click.IntRange(0, 10_000),
    default=200,
    show_default=True,
    help="How many of the last lines; all of a build.",
)
@click.option("--since", help="Only lines of the last 10m, 2h or 1d, or after a time such as 2026-03-19T10:00:00Z.")
@click.option("--instance", help="Only lines of this instance.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="json: one object a line.")
@click.pass_context
def logs(ctx: click.Context, /, name: str | None, component: str | None, kind: str, output: str, **given: Any) -> None:
    """Show what an application wrote, or the log of a build.

    \b
    Examples:
      minuet logs web --env Production --follow
      minuet logs web --since 10m -o json
      minuet logs web --type build --build-id web-1
    """
    chosen = name or component
    if chosen is None:
        raise invalid_field("component", "is required", hint="name it: minuet logs web")
    _check(ctx, kind)
    given["since"] = moment(given["since"], datetime.datetime.now(datetime.UTC))
    if kind == "build" and ctx.get_parameter_source("tail") is ParameterSource.DEFAULT:
        given["tail"] = None
    lines = _build(chosen, given) if kind == "build" else _application(chosen, given)
    for line in lines:
        if output == "json":
            screen.data(json.dumps(line))
            continue
        if line.get("dropped"):
            screen.say(f"({line['dropped']} lines were dropped here)")
        origin = f"[{line.get('phase') or ''}]" if kind == "build" else line["instance"]
        screen.data(f"{line['time']} {origin} {line['message']}")


_NOT_FOR = {"component-application": ("build_id",), "build": ("environment", "instance")}
"""Flags that say nothing about the log of a kind, and are refused rather than passed over."""


def _check(ctx: click.Context, kind: str) -> None:
    given = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    flags = {"build_id": "--build-id", "environment": "--env", "instance": "--instance"}
    for name in _NOT_FOR[kind]:
        if name in given:
            other = next(other for other in _TYPES if other != kind)
            raise invalid_field(flags[name], f"is only for --type {other}", hint="leave it out, or change --type")
    if kind == "build" and {"tail", "follow"} <= given:
        raise invalid_field("--tail", "of a build cannot be followed", hint="leave out --tail or --follow")


def moment(since: str | None, now: datetime.datetime) -> str | None:
    """A span before now, or a moment, as the API takes it; raises `Invalid` for anything else."""
    if since is None:
        return None
    span = _SPAN.fullmatch(since.strip())
    try:
        if span:
            then = now - datetime.timedelta(seconds=int(span[1]) * _SECONDS[span[2]])
        else:
            then = datetime.datetime.fromisoformat(since.strip())
            then = then if then.tzinfo else then.astimezone()
        return then.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError) as error:
        raise invalid_field(
            "since", "is neither a span nor a moment", given=since, allowed=("10m", "2h", "1d", "2026-03-19T10:00:00Z")
        ) from error


def _application(component: str, given: dict[str, Any]) -> Iterable[dict[str, Any]]:
    server = place.api()
    path = place.environment_path(server, given["project"], component, given["environment"], "logs")
    return reader.lines(server, path, **{name: given[name] for name in ("tail", "follow", "since", "instance")})


def _build(component: str, given: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """The whole log comes from the server; how much of it is shown is decided here."""
    server = place.api()
    build, where = given["build_id"], place.project_of(server, given["project"], component)
    if build is None:
        newest = server.get(place.component_path(server, where, component, "builds"), limit=1)["items"]
        if not newest:
            following = place.command_line("create", "build", component, project=where)
            raise NotFound(f"{component} has not been built yet", hint=f"`{following}` builds it")
        build = newest[0]["id"]
    path = build_path(server, where, component, build)
    lines = _since(reader.lines(server, f"{path}/logs", follow=given["follow"]), given["since"])
    return lines if given["tail"] is None else deque(lines, maxlen=given["tail"])


def _since(lines: Iterable[dict[str, Any]], since: str | None) -> Iterator[dict[str, Any]]:
    """Lines from a moment on; a line whose time cannot be read is shown rather than lost."""
    first = None if since is None else datetime.datetime.fromisoformat(since)
    for line in lines:
        try:
            is_old = first is not None and datetime.datetime.fromisoformat(str(line.get("time"))) < first
        except (ValueError, TypeError):
            is_old = False
        if not is_old:
            yield line
