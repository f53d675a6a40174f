"""Health checks: how an instance of a component shows, in an environment, that it can take requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from minuet.cli import nouns, place
from minuet.cli.commands import config
from minuet.kernel import health
from minuet.kernel.errors import NotFound
from minuet.kernel.health import Limit, ProbeKind

Command = Callable[..., Any]


def _number(name: str, limit: Limit) -> Callable[[Command], Command]:
    said = f"{limit.meaning} [{limit.least} to {limit.most}; {limit.default} if not given]"
    return click.option(f"--{name}", type=click.IntRange(limit.least, limit.most), help=said)


@click.command("health")
@place.component_argument
@place.project_option
@place.environment_option
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in ProbeKind]),
    default=ProbeKind.HTTP.value,
    show_default=True,
    help="A GET that answers with 200 to 399, or a TCP connection that is accepted.",
)
@click.option("--path", help="What a GET asks for; / if not given.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of an endpoint; the first that fits if not given.")
@_number("period", health.PERIOD)
@_number("timeout", health.TIMEOUT)
@_number("initial-delay", health.INITIAL_DELAY)
@_number("failure-threshold", health.FAILURE_THRESHOLD)
@_number("success-threshold", health.SUCCESS_THRESHOLD)
@click.option("--no-deploy", is_flag=True, help="Keep it for the next deployment instead of applying it now.")
def set_(component: str, project: str | None, environment: str, no_deploy: bool, **given: Any) -> None:
    """Declare the health check, as a whole; a deployed component is deployed again with it.

    A new version gets no requests until it passes. An instance that fails later
    gets none until it passes again.

    \b
    Examples:
      minuet set health web --env Development --path /healthz
      minuet set health web --env Production --path /healthz --period 5 --failure-threshold 2
      minuet set health broker --kind tcp --port 1883
    """
    check = {_camel(name): value for name, value in given.items() if value is not None}
    _change(component, project, environment, {"health": check, "apply": not no_deploy})


def _change(component: str, project: str | None, environment: str, body: dict[str, Any]) -> None:
    server = place.api()
    where = place.project_of(server, project, component)
    changed = server.patch(place.environment_path(server, where, component, environment, "configuration"), body)
    config.tell(changed, where, component, environment)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


@click.command("health")
@place.component_argument
@place.project_option
@place.environment_option
@click.option("--no-deploy", is_flag=True, help="Keep it for the next deployment instead of applying it now.")
def unset_(component: str, project: str | None, environment: str, no_deploy: bool) -> None:
    """Take the declared health check away; a first answer is enough again.

    \b
    Example:
      minuet unset health web --env Development
    """
    _change(component, project, environment, {"health": None, "apply": not no_deploy})


@click.command("health")
@place.component_argument
@place.project_option
@place.environment_option
@place.output_option
def get_(component: str, project: str | None, environment: str, output: str) -> None:
    """Print the declared health check.

    \b
    Example:
      minuet get health web --env Production -o yaml
    """
    server = place.api()
    found = server.get(place.environment_path(server, project, component, environment, "configuration")).get("health")
    if found is None:
        raise NotFound(
            f"{component} declares no health check in {environment.lower()}",
            code="HealthCheckNotFound",
            hint=f"`minuet set health {component} --env {environment} --path /healthz` declares one",
        )
    nouns.show_one(found, output, name="kind")
