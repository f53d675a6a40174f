"""How long the gateway takes to move a route and to come back from its death, by the number of hosts."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bench.table import Row, percentile
from minuet.gateway.model import RoutingTable
from tests.given.gateway import Gateway, backend, route
from tests.given.load import Load
from tests.given.platform import eventually
from tests.given.upstream import Upstream

SIZES = (1, 100, 1000)
HOST = "v0.localhost"


def measure(directory: Path, rounds: int) -> list[Row]:
    rows: list[Row] = []
    for size in SIZES:
        place = directory / f"gateway-{size}"
        place.mkdir()
        gateway = Gateway(place)
        try:
            with Upstream("old") as old, Upstream("new") as new:
                rows += _at(gateway, size, (old.port, new.port), rounds)
        finally:
            gateway.stop()
    return rows


def _at(gateway: Gateway, size: int, ports: tuple[int, int], rounds: int) -> list[Row]:
    gateway.apply(_table(size, "old", ports))
    took = []
    with Load(gateway.port, HOST) as load:
        eventually(lambda: len(load.answers) > 10)
        for number in range(rounds):
            table = _table(size, ("new", "old")[number % 2], ports)
            began = time.monotonic()
            asyncio.run(gateway.host.apply(table))
            took.append(time.monotonic() - began)
    back = []
    for _ in range(max(3, rounds // 10)):
        gateway.kill_envoy()
        began = time.monotonic()
        eventually(gateway.is_ready)
        back.append(time.monotonic() - began)
    goal = 0.05 if size <= 100 else 0.5
    return [
        Row(f"one route moves, {size} hosts", f"p99 <= {goal} s", "s", took, percentile(took, 0.99) <= goal),
        Row("failed requests meanwhile", "0", "", [float(len(load.failures))], not load.failures),
        Row(f"kill -9 of Envoy -> answers, {size} hosts", "<= 1.5 s", "s", back, max(back) <= 1.5),
    ]


def _table(size: int, version: str, ports: tuple[int, int]) -> RoutingTable:
    """The first host has two versions; the others stay as they are."""
    others = range(1, size)
    routes = tuple(route(f"v{n}", host=f"v{n}.localhost", owner=f"v{n}") for n in others)
    backends = tuple(backend(f"v{n}", ports[0]) for n in others)
    return RoutingTable(
        (route(version, host=HOST, owner="v0"), *routes),
        (backend("old", ports[0]), backend("new", ports[1]), *backends),
    )
