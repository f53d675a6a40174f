"""Whether the platform is well, seen from outside."""

from __future__ import annotations

from typing import Any

import click

from minuet.cli import place, screen
from minuet.kernel.errors import NotReady


@click.command()
@place.output_option
def status(output: str) -> None:
    """Show server, data planes and builders.

    \b
    Example:
      minuet status
    """
    server = place.api()
    me = server.get("/me")
    planes = list(server.pages(server.organization("data-planes")))
    buildpacks = server.get(server.organization("buildpacks"))["items"]
    if output in ("json", "yaml"):
        screen.document({"server": me, "dataPlanes": planes, "buildpacks": buildpacks}, output)
    else:
        screen.fields(
            [
                ("Server", f"{server.context.server}, version {me.get('version') or me.get('serverVersion')}"),
                ("Organization", me["organization"]),
                (
                    "Buildpacks",
                    ", ".join(dict.fromkeys(item["name"] for item in buildpacks)) or "none: no builder has registered",
                ),
            ]
        )
        for plane in planes:
            gateway = "ready" if plane["gatewayReady"] else "not ready"
            link = "up" if plane["connected"] else "down"
            screen.data(
                f"Data plane {plane['name']}: link {link}, isolation {plane.get('isolation') or 'unknown'}, gateway {gateway} at {plane.get('gatewayUrl') or 'no address yet'}"
            )
            for warning in plane["warnings"]:
                screen.data(f"  warning: {warning}")
    if missing := _missing(buildpacks, planes):
        raise NotReady(f"not everything is up: {'; '.join(missing)}", hint="the logs are in <data>/<role>/log")


def _missing(buildpacks: list[dict[str, Any]], planes: list[dict[str, Any]]) -> list[str]:
    """What does not do its part, in words."""
    found = [] if buildpacks else ["no builder has registered"]
    for plane in planes:
        if not plane["connected"]:
            found.append(f"the agent of {plane['name']} is not connected")
        elif not plane["gatewayReady"]:
            found.append(f"the gateway of {plane['name']} does not answer")
    return found
