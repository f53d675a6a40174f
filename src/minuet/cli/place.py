"""What most commands share: the API of the current context, which project is meant, and the options that say where."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from minuet.cli import names
from minuet.client import contexts
from minuet.client.api import Api
from minuet.kernel.errors import Invalid, NotFound

Command = Callable[..., Any]


def api() -> Api:
    """The server of the current context, in the organization that was asked for."""
    context = contexts.current()
    organization = _organization_asked()
    if organization and organization != context.organization:
        context = replace(context, organization=organization, project=None)
    return Api(context)


def _organization_asked() -> str | None:
    return click.get_current_context().find_root().params.get("organization")


def project_option(command: Command) -> Command:
    return click.option(
        "--project",
        shell_complete=names.projects,
        help="Name of the project; that of the context, or the one that has the component, if not given.",
    )(command)


def component_option(command: Command) -> Command:
    """`--component`, for what belongs to one."""
    return click.option("--component", required=True, shell_complete=names.components, help="Component it belongs to.")(
        command
    )


def component_argument(command: Command) -> Command:
    return click.argument("component", shell_complete=names.components)(command)


def environment_option(command: Command) -> Command:
    return click.option(
        "--env",
        "environment",
        default="development",
        show_default=True,
        shell_complete=names.environments,
        help="Environment.",
    )(command)


def output_option(command: Command) -> Command:
    forms = click.Choice(["table", "json", "yaml", "name"])
    return click.option("-o", "--output", type=forms, default="table", help="Form of the answer.")(command)


def yes_option(command: Command) -> Command:
    return click.option("--yes", is_flag=True, help="Do not ask.")(command)


def project_of(server: Api, given: str | None, component: str | None = None) -> str:
    """The project that was named, else that of the context, else the only one that can be meant.

    With a `component` those are the projects that have it, so that its name
    alone is enough when it is unique. Raises `Invalid` naming the candidates.
    """
    if given:
        return given
    if component is not None and (found := _project_with(server, component)):
        return found
    if server.context.project:
        return server.context.project
    known = [item["name"] for item in server.get(server.organization("projects"), limit=10)["items"]]
    if len(known) == 1:
        return str(known[0])
    if not known:
        raise NotFound("there is no project yet", hint="`minuet create project <name>` makes one")
    if component is not None:
        raise NotFound(
            f"no project has a component {component}",
            code="ComponentNotFound",
            hint="`minuet list components` shows what there is",
        )
    raise Invalid("there are several projects", hint=f"say which with --project: {', '.join(known)}")


def _project_with(server: Api, component: str) -> str | None:
    """The project whose component of that name is meant: the context's comes first, then there must be just one."""
    if server.context.project and _has(server, server.context.project, component):
        return server.context.project
    items = server.pages(server.organization("components"))
    having = [str(item["project"]) for item in items if item["name"] == component]
    if len(having) > 1:
        raise Invalid(
            f"several projects have a component {component}", hint=f"say which with --project: {', '.join(having)}"
        )
    return having[0] if having else None


def _has(server: Api, project: str, component: str) -> bool:
    try:
        server.get(server.organization("projects", project, "components", component))
    except NotFound:
        return False
    return True


def component_path(server: Api, project: str | None, component: str, *parts: str) -> str:
    """The path of a component or of something below it."""
    where = project_of(server, project, component)
    return server.organization("projects", where, "components", component, *parts)


def environment_path(server: Api, project: str | None, component: str, environment: str, *parts: str) -> str:
    """The path of a component in an environment; names of environments may be written with capitals."""
    return component_path(server, project, component, "environments", environment.lower(), *parts)


def command_line(*words: str, **options: str | None) -> str:
    """A command that can be pasted as it is: everything it needs is named, quoted where a shell asks for it."""
    organization = _organization_asked()
    start = ("minuet", "--organization", organization) if organization else ("minuet",)
    flags = [text for name, value in options.items() if value for text in (f"--{name.replace('_', '-')}", value)]
    return shlex.join([*start, *words, *flags])


def named(step: str, of: dict[str, Any]) -> str:
    """A next step in which the catalogue's `<name>` and `<environment>` are those of a build or deployment.

    So a command in it can be pasted as it is; a component is named with its project.
    """
    component, project, environment = of.get("component"), of.get("project"), of.get("environment")
    if component and project:
        step = step.replace("<name>", f"{component} --project {project}")
    return step.replace("<environment>", environment) if environment else step


def named_steps(conditions: list[dict[str, Any]], of: dict[str, Any]) -> list[dict[str, Any]]:
    """Conditions whose next steps are `named`."""
    return [item | {"nextStep": named(item["nextStep"], of)} if item.get("nextStep") else item for item in conditions]
