"""Builds."""

from __future__ import annotations

from typing import Any

import click

from minuet.cli import names, nouns, place, progress, screen
from minuet.client.api import Api
from minuet.kernel.errors import invalid_field

WAIT_SECONDS = 1800.0
"""How long a build is waited for; longer than a build may take and wait in the queue on a quiet installation."""

_component_option = click.option(
    "--component", shell_complete=names.components, help="Component, if the id does not tell."
)
_build_argument = click.argument("build", shell_complete=names.builds)


def build_path(server: Api, project: str | None, component: str | None, build: str) -> str:
    """The path of a build; its id begins with the component's name."""
    owner = component or build.rpartition("-")[0]
    if not owner:
        raise invalid_field("build", "must be the id of a build, such as web-1", given=build)
    return place.component_path(server, project, owner, "builds", build)


@click.command("build")
@place.component_argument
@place.project_option
@click.option("--commit", help="Commit to build instead of the branch's head.")
@click.option("--branch", help="Branch to build instead of the component's.")
@click.option("--no-wait", is_flag=True, help="Return at once.")
@click.option("--timeout", type=nouns.SECONDS, default=WAIT_SECONDS, show_default=True, help="Seconds to wait.")
def create_(
    component: str, project: str | None, commit: str | None, branch: str | None, no_wait: bool, timeout: float
) -> None:
    """Build a component and stream the log; prints the build's id.

    \b
    Example:
      minuet create build web --project shop
    """
    server = place.api()
    chosen = {"commit": commit, "branch": branch}
    body = {name: value for name, value in chosen.items() if value}
    where = place.project_of(server, project, component)
    path = server.organization("projects", where, "components", component, "builds")
    made = server.post(path, body)
    screen.say(f"Building {made['id']} ...")
    if not no_wait:
        ended = progress.follow_build(server, f"{path}/{made['id']}", timeout)
        if ended["status"] != "Succeeded":
            raise progress.build_failed(ended, seen=True)
        words = ("create", "deployment", component)
        following = place.command_line(*words, project=where, env="Development", build_id=made["id"])
        screen.say(f"Next: {following}")
    screen.data(made["id"])


@click.command("builds")
@place.project_option
@place.component_option
@place.output_option
def list_(project: str | None, component: str, output: str) -> None:
    """List the builds of a component, the newest first.

    \b
    Example:
      minuet list builds --project shop --component web
    """
    server = place.api()
    items = server.pages(place.component_path(server, project, component, "builds"))
    nouns.show_list(items, output, ("id", "status", "commit", "message", "reason", "age"), _row, name="id")


def _row(build: dict[str, Any]) -> tuple[object, ...]:
    commit = (build.get("commit") or "")[:10]
    reason = build["reason"] if build["status"] == "Failed" else ""
    return build["id"], build["status"], commit, build.get("commitMessage"), reason, screen.ago(build["createdAt"])


@click.command("build")
@_build_argument
@place.project_option
@_component_option
@place.output_option
def describe_(build: str, project: str | None, component: str | None, output: str) -> None:
    """Describe a build: its phases, its artifact, and why it failed.

    \b
    Example:
      minuet describe build web-1 --project shop
    """
    server = place.api()
    found = server.get(build_path(server, project, component, build))
    if output != "table":
        nouns.show_one(found, output, name="id")
        return
    artifact = found.get("artifact") or {}
    screen.fields(
        [
            ("Build", found["id"]),
            ("Status", found["status"]),
            ("Branch", found["branch"]),
            ("Commit", found.get("commit")),
            ("Message", found.get("commitMessage")),
            ("Author", found.get("commitAuthor")),
            ("Toolchain", artifact.get("toolchain")),
            ("Start command", artifact.get("command")),
            ("Artifact", artifact.get("digest")),
            ("Bill of materials", artifact.get("sbom")),
            ("Requested by", found["requestedBy"]),
        ]
    )
    for phase in found["phases"]:
        screen.data(
            f"  {phase['name'].ljust(8)} {phase['state'].ljust(10)} {phase['seconds']:6.2f} s  {phase['message']}"
        )
    for endpoint in found.get("endpoints") or ():
        screen.data(f"  endpoint {endpoint['name']}: {endpoint['type']} on {endpoint['port']}{endpoint['basePath']}")
    for warning in found.get("warnings") or ():
        screen.data(f"  warning: {warning}")
    screen.conditions(place.named_steps(found["conditions"], found))
    if found["status"] == "Failed" and (step := progress.next_step(found["reason"], found)):
        screen.data(f"    -> {step}")


@click.command("build")
@_build_argument
@place.project_option
@_component_option
@place.output_option
def get_(build: str, project: str | None, component: str | None, output: str) -> None:
    """Print a build.

    \b
    Example:
      minuet get build web-1 -o json
    """
    server = place.api()
    nouns.show_one(server.get(build_path(server, project, component, build)), output, name="id")


@click.command("build")
@_build_argument
@place.project_option
@_component_option
def cancel_(build: str, project: str | None, component: str | None) -> None:
    """Cancel a build that waits or runs.

    \b
    Example:
      minuet cancel build web-1
    """
    server = place.api()
    server.post(f"{build_path(server, project, component, build)}/cancel")
    screen.say(f"Cancelling the build {build}.")


@click.command("build")
@_build_argument
@place.project_option
@_component_option
@click.option("--timeout", type=nouns.SECONDS, default=WAIT_SECONDS, show_default=True, help="Seconds to wait.")
def wait_(build: str, project: str | None, component: str | None, timeout: float) -> None:
    """Wait until a build has ended; exits with 6 if it failed.

    \b
    Example:
      minuet wait build web-1
    """
    server = place.api()
    path = build_path(server, project, component, build)
    ended = progress.until_built(server, path, server.get(path), timeout)
    if ended["status"] != "Succeeded":
        raise progress.build_failed(ended)
    screen.say(f"The build {build} succeeded.")
