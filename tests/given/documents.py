"""Builders of protocol documents for tests: legal by default, one field changed at a time."""

from typing import Any

from minuet.protocol.desired import Artifact, Layer, Route, Workload

ARTIFACT = Artifact(
    digest="sha256:" + "1" * 64,
    manifest="{}",
    signature="",
    public_key="",
    store="http://127.0.0.1:1",
    ticket="",
    layers=(Layer(digest="sha256:" + "2" * 64, size=10, target="/app"),),
)


def workload(**changes: Any) -> Workload:
    """Returns a service called `web` in `shop`, with one public route on port 8080."""
    fields: dict[str, Any] = {
        "key": "cmp_1/env_1",
        "organization": "default",
        "project": "shop",
        "component": "web",
        "environment": "development",
        "generation": 1,
        "deployment": "20260101-1.1.1",
        "release": "20260101-1",
        "artifact": ARTIFACT,
        "command": "python app.py",
        "ports": (8080,),
        "routes": (Route(endpoint="web", host="web--shop--development.localhost", base_path="/", port=8080),),
    }
    return Workload(**(fields | changes))
