"""`make bench`: starts a platform of its own, measures it, prints one table.

Ratios and rows of zero count; seconds are for two quiet cores. `--quick` does
few rounds of everything, which the tests use.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from bench import cli, gateway_swap, memory, observed, redeploy
from bench.own_platform import own_platform
from bench.table import Row, show
from tests.given.platform import Platform
from tests.given.repository import Repository, python_app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds of everything")
    quick = parser.parse_args().quick
    rows: list[Row] = []
    with own_platform() as (platform, directory):
        rows += start(platform, directory)
        rows += memory.measure(platform)
        rows += cli.measure(platform, 5 if quick else 20)
        rows += observed.measure(platform, "web", 5 if quick else 50)
        rows += redeploy.measure(platform, directory, 5 if quick else 100)
        rows += gateway_swap.measure(directory, 10 if quick else 100)
    show(rows)


def start(platform: Platform, directory: Path) -> list[Row]:
    began = time.monotonic()
    platform.up()
    ready = time.monotonic() - began
    repository = Repository(directory / "first")
    repository.commit(python_app("one"))
    platform.cli("create", "project", "shop")
    began = time.monotonic()
    platform.cli(
        *("create", "component", "web", "--project", "shop", "--type", "service", "--repo", repository.url),
        *("--build-configs", "buildpack=python,buildPackLangVersion=3.11"),
    )
    platform.cli("create", "build", "web", "--project", "shop")
    platform.cli("create", "deployment", "web", "--project", "shop", "--env", "Development")
    first = time.monotonic() - began
    return [
        Row("installed -> platform ready", "<= 5 s", "s", [ready], ready <= 5),
        Row("first app from an empty cache", "report", "s", [first]),
    ]


if __name__ == "__main__":
    main()
