"""How long after something changed on the data plane the API tells of it."""

from __future__ import annotations

import time

from bench.table import Row, percentile
from tests.given import victims
from tests.given.platform import Platform, eventually

INSTANCES = 10
_PLACE = "projects/shop/components/web/environments/development"


def measure(platform: Platform, rounds: int) -> list[Row]:
    """Kills applications, each of another instance, and looks when its restart is in the API."""
    platform.cli("scale", "web", "--project", "shop", "--env", "Development", "--replicas", str(INSTANCES))
    eventually(lambda: _ready(platform) == INSTANCES, 60)
    took = []
    for number in range(rounds):
        state = victims.instances(platform, "web")[number % INSTANCES]
        restarts = state["restarts"]
        began = time.monotonic()
        victims.kill(victims.program(state))
        eventually(lambda: _restarts(platform, state["id"]) > restarts, pause=0.002)  # noqa: B023
        took.append(time.monotonic() - began)
        eventually(lambda: _ready(platform) == INSTANCES, 60)
    platform.cli("scale", "web", "--project", "shop", "--env", "Development", "--replicas", "1")
    return [Row("observed change -> visible in the API", "p99 <= 1 s", "s", took, percentile(took, 0.99) <= 1)]


def _ready(platform: Platform) -> int:
    return sum(1 for instance in platform.call(_PLACE)["instances"] if instance["ready"])


def _restarts(platform: Platform, name: str) -> int:
    return next(int(item["restarts"]) for item in platform.call(_PLACE)["instances"] if item["id"] == name)
