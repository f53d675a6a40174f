"""From `git push` of one changed line to the new code served, under a steady load."""

from __future__ import annotations

import os
import re
import statistics
import time
from pathlib import Path

from bench.table import Row, percentile
from tests.given.load import Load
from tests.given.platform import Platform, eventually
from tests.given.repository import Repository, python_app


def measure(platform: Platform, directory: Path, rounds: int) -> list[Row]:
    repository = Repository(directory / "pushed")
    repository.commit(python_app("v0"))
    platform.cli(
        *("create", "component", "pushed", "--project", "shop", "--type", "service", "--branch", "main"),
        *("--build-configs", "buildpack=python,buildPackLangVersion=3.11", "--auto-deploy"),
    )
    remote = platform.json("describe", "project", "shop")["cloneUrl"]
    token = re.search(r'token = "([^"]+)"', (platform.home / "contexts.toml").read_text())
    assert token
    repository.git("remote", "add", "minuet", remote.replace("://", f"://owner:{token[1]}@", 1))
    repository.git("push", "-q", "minuet", "main")
    url = platform.url("pushed")
    eventually(lambda: platform.fetch(url) == (200, "v0"))
    host = url.split("/")[2]

    with Load(platform.ports["gateway"], host) as quiet:
        time.sleep(min(10, rounds))
    took = []
    with Load(platform.ports["gateway"], host) as load:
        for number in range(1, rounds + 1):
            repository.commit(python_app(f"v{number}"))
            began = time.monotonic()
            repository.git("push", "-q", "minuet", "main")
            eventually(lambda: load.answers and load.answers[-1][1] == f"v{number}")  # noqa: B023
            took.append(next(at for at, body in load.answers if body == f"v{number}") - began)
    ratio = percentile(load.seconds, 0.99) / percentile(quiet.seconds, 0.99)
    return [
        Row("git push -> new code served", "median <= 1 s, p99 <= 2 s", "s", took, _held(took)),
        Row("failed requests meanwhile", "0", "", [float(len(load.failures))], not load.failures),
        Row("p99 of requests, swapping / quiet", "<= 2", "ratio", [ratio], ratio <= 2),
        *(_peer(name) for name in ("piku", "Hop3")),
    ]


def _peer(name: str) -> Row:
    """A peer is measured where its path is given; nothing is claimed of one that was not run."""
    variable = f"MINUET_BENCH_{name.upper()}"
    note = f"{variable} is not set" if variable not in os.environ else f"{variable}: no driver for it yet"
    return Row(f"the same with {name}", "at least 3x slower", "s", note=note)


def _held(took: list[float]) -> bool:
    return statistics.median(took) <= 1 and percentile(took, 0.99) <= 2
