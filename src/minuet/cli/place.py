"""What most commands share: the API of the current context, and the options that say where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from minuet.client import contexts
from minuet.client.api import Api
from minuet.kernel.errors import Invalid, NotFound

Command = Callable[..., Any]


def api() -> Api:
    """The server of the current context, in the organization that was asked for."""
    context = contexts.current()
    organization = click.get_current_context().find_root().params.get("organization")
    return Api(replace(context, organization=organization) if organization else context)


def project_option(command: Command) -> Command:
    return click.option("--project", help="Name of the project; not needed when there is only one.")(command)


def environment_option(command: Command) -> Command:
    return click.option("--env", "environment", default="development", show_default=True, help="Environment.")(command)


def output_option(command: Command) -> Command:
    forms = click.Choice(["table", "json", "yaml", "name"])
    return click.option("-o", "--output", type=forms, default="table", help="Form of the answer.")(command)


def yes_option(command: Command) -> Command:
    return click.option("--yes", is_flag=True, help="Do not ask.")(command)


def project_of(server: Api, given: str | None) -> str:
    """The project that was named, that of the context, or the only one there is."""
    chosen = given or server.context.project
    if chosen:
        return chosen
    names = [item["name"] for item in server.get(server.organization("projects"), limit=10)["items"]]
    if len(names) == 1:
        return str(names[0])
    if not names:
        raise NotFound("there is no project yet", hint="`minuet create project <name>` makes one")
    raise Invalid("there are several projects", hint=f"say which with --project: {', '.join(names)}")


def component_path(server: Api, project: str | None, component: str, *parts: str) -> str:
    """The path of a component or of something below it."""
    return server.organization("projects", project_of(server, project), "components", component, *parts)


def environment_path(server: Api, project: str | None, component: str, environment: str, *parts: str) -> str:
    """The path of a component in an environment; names of environments may be written with capitals."""
    return component_path(server, project, component, "environments", environment.lower(), *parts)
