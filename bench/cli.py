"""How long the command takes to answer."""

from __future__ import annotations

import statistics
import time

from bench.table import Row
from tests.given.platform import Platform


def measure(platform: Platform, rounds: int) -> list[Row]:
    rows = []
    for arguments, goal in ((("--help",), 0.15), (("list", "components", "--project", "shop"), 0.4)):
        took = []
        for _ in range(rounds):
            began = time.monotonic()
            platform.cli(*arguments)
            took.append(time.monotonic() - began)
        held = statistics.median(took) <= goal
        rows.append(Row(f"minuet {' '.join(arguments[:2])}", f"<= {goal} s", "s", took, held))
    return rows
