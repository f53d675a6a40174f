"""Short runs of what `make chaos`, `make soak` and `make bench` do for long: the promises hold, whatever the speed."""

from __future__ import annotations

from pathlib import Path

from bench import cli, memory, observed, redeploy, soak
from bench.chaos import Chaos
from tests.given.platform import Platform


def test_random_faults_under_load_break_no_promise(platform: Platform, open_path: Path) -> None:
    chaos = Chaos(platform, open_path, seed=11)
    chaos.run(10)
    assert [line for record in chaos.records.values() for line in record.broken] == []


def test_nothing_grows_with_redeploys(platform: Platform, open_path: Path) -> None:
    table = soak.rows(soak.run(platform, open_path, 10))
    assert [f"{row.what}: {row.note}" for row in table if row.held is False] == []


def test_the_bench_runs_and_its_rows_of_zero_hold(platform: Platform, open_path: Path) -> None:
    table = [*memory.measure(platform), *cli.measure(platform, 2), *observed.measure(platform, "pair", 3)]
    table += redeploy.measure(platform, open_path, 3)
    assert all(row.rounds or row.note for row in table)
    assert [row.what for row in table if row.goal == "0" and not row.held] == []
