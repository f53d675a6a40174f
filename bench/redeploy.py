"""From `git push` of one changed line to the new code served, under a steady load."""

from __future__ import annotations

import re
import statistics
import time
from pathlib import Path

from bench import peers
from bench.rounds import redeploy
from bench.table import Row, percentile
from tests.given.load import Load
from tests.given.platform import Platform, eventually
from tests.given.repository import Repository, python_app


def measure(platform: Platform, directory: Path, rounds: int) -> list[Row]:
    repository = Repository(directory / "pushed")
    repository.commit(python_app("v0"))
    repository.git("remote", "add", "minuet", _remote(platform))
    _component(platform, "redeployed", "redeployed", "--auto-deploy")
    _component(platform, "only-built", "only-built")
    repository.git("push", "-q", "minuet", "main:redeployed")
    eventually(lambda: platform.fetch(platform.url("redeployed")) == (200, "v0"))

    control = _load(platform)
    with control:
        _build_only(repository, rounds)
    outcome = redeploy(repository, ("minuet", "main:redeployed"), _load(platform), rounds)
    ratio = percentile(outcome.latencies, 0.99) / percentile(control.seconds, 0.99)
    note = f"{1000 * percentile(outcome.latencies, 0.99):.1f} ms / {1000 * percentile(control.seconds, 0.99):.1f} ms"
    median = statistics.median(outcome.seconds)
    return [
        Row("git push -> new code served", "median <= 1 s, p99 <= 2 s", "s", outcome.seconds, _held(outcome.seconds)),
        Row("failed requests meanwhile", "0", "", [float(len(outcome.failures))], not outcome.failures),
        Row("p99 of requests, build and swap / equal build", "<= 2", "ratio", [ratio], ratio <= 2, note),
        *peers.measure(directory, median),
    ]


def _component(platform: Platform, name: str, branch: str, *flags: str) -> None:
    platform.cli(
        *("create", "component", name, "--project", "shop", "--type", "service", "--branch", branch),
        *("--build-configs", "buildpack=python,buildPackLangVersion=3.11", *flags),
    )


def _remote(platform: Platform) -> str:
    """The hosted repository's address with the owner's token in it."""
    address = str(platform.json("describe", "project", "shop")["cloneUrl"])
    return re.sub("://", f"://owner:{platform.token}@", address, count=1)


def _load(platform: Platform) -> Load:
    return Load(platform.ports["gateway"], platform.url("redeployed").split("/")[2])


def _build_only(repository: Repository, rounds: int) -> None:
    """The same pushes and builds of a component that does not deploy; the push returns when its build has ended."""
    for number in range(rounds):
        repository.commit(python_app(f"control {number}"))
        began = time.monotonic()
        repository.git("push", "-q", "minuet", "main:only-built")
        # Builds alone must not follow each other faster than builds with a swap do.
        time.sleep(max(0.0, 0.5 - (time.monotonic() - began)))


def _held(took: list[float]) -> bool:
    return statistics.median(took) <= 1 and percentile(took, 0.99) <= 2
