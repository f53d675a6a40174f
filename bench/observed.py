"""How long after something changed on the data plane the API tells of it."""

from __future__ import annotations

import time

from bench.table import Row, percentile
from tests.given import victims
from tests.given.platform import Platform, eventually

INSTANCES = 10


def measure(platform: Platform, component: str, rounds: int) -> list[Row]:
    """Kills applications, each of another instance, and looks when its restart is in the API."""
    place = f"projects/shop/components/{component}/environments/development"
    platform.cli("scale", component, "--project", "shop", "--env", "Development", "--replicas", str(INSTANCES))
    eventually(lambda: _ready(platform, place) == INSTANCES, 60)
    took = []
    for number in range(rounds):
        state = victims.instances(platform, component)[number % INSTANCES]
        restarts = state["restarts"]
        began = time.monotonic()
        victims.kill(victims.program(state))
        eventually(lambda: _restarts(platform, place, state["id"]) > restarts, pause=0.002)  # noqa: B023 - looked at before the next round
        took.append(time.monotonic() - began)
        eventually(lambda: _ready(platform, place) == INSTANCES, 60)
    platform.cli("scale", component, "--project", "shop", "--env", "Development", "--replicas", "1")
    return [Row("observed change -> visible in the API", "p99 <= 1 s", "s", took, percentile(took, 0.99) <= 1)]


def _ready(platform: Platform, place: str) -> int:
    return sum(1 for instance in platform.call(place)["instances"] if instance["ready"])


def _restarts(platform: Platform, place: str, name: str) -> int:
    return next(int(item["restarts"]) for item in platform.call(place)["instances"] if item["id"] == name)
