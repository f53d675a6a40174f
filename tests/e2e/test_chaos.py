"""A short run of `make chaos`: every fault at a random moment of a deployment, and every promise kept."""

from __future__ import annotations

from pathlib import Path

from bench.chaos import Chaos
from tests.given.platform import Platform


def test_random_faults_under_load_break_no_promise(platform: Platform, open_path: Path) -> None:
    chaos = Chaos(platform, open_path, seed=11)
    chaos.run(45)
    assert [line for record in chaos.records.values() for line in record.broken] == []
