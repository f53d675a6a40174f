"""Whether the platform is well, seen from outside."""

from __future__ import annotations

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
            link = "up" if plane["connected"] else "down"
            screen.data(
                f"Data plane {plane['name']}: link {link}, isolation {plane.get('isolation') or 'unknown'}, {plane.get('gatewayUrl') or 'no gateway yet'}"
            )
    if not buildpacks or not all(plane["connected"] for plane in planes):
        raise NotReady("not everything is up", hint="the logs are in <data>/<role>/log")
