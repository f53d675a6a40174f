"""Static sites: files as they are, served by a small server that comes with the artifact."""

from __future__ import annotations

from pathlib import Path

from minuet.builders.buildpacks.port import Plan, Request
from minuet.builders.failure import BuildFailure
from minuet.builders.tree import Tree
from minuet.protocol.building import BuildpackOffer

SERVER = {"/opt/static": Path(__file__).with_name("static_server.py")}
SERVE = "exec /usr/bin/python3 -I /opt/static/static_server.py /app"
"""A server of our own, because a data plane has the system's Python and need not have a web server."""

SERVE_SINGLE_PAGE = f"{SERVE} --single-page"
"""The same for front ends, whose own code answers the paths that are no files."""


class Static:
    """A folder with an index.html."""

    name = "static"

    def offers(self) -> tuple[BuildpackOffer, ...]:
        return (BuildpackOffer(name=self.name, component_types=("web-application", "service"), optional=("port",)),)

    def detect(self, tree: Tree) -> str | None:
        return "there is an index.html" if tree.has("index.html") else None

    def plan(self, request: Request) -> Plan:
        if not request.tree.has("index.html"):
            raise BuildFailure("OutputMissing", "there is no index.html in the component's directory")
        return Plan(
            toolchain="static",
            command=SERVE,
            extra=SERVER,
            environment={"PATH": "/usr/local/bin:/usr/bin:/bin"},
            leave_out=frozenset({".choreo", "Procfile"}),
        )
