"""The one form in which figures are printed."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Row:
    """One measured thing: its goal in words, every round, and the unit."""

    what: str
    goal: str
    unit: str
    rounds: Sequence[float] = ()
    held: bool | None = None
    note: str = ""
    load: float = field(default_factory=lambda: os.getloadavg()[0])


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def show(rows: Sequence[Row]) -> None:
    """Prints the table; a missed goal stays in it."""
    print("| what | goal | median | p99 | unit | rounds | held | load | note |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        if row.rounds:
            middle, high = statistics.median(row.rounds), percentile(row.rounds, 0.99)
            rounds = " ".join(f"{value:.3g}" for value in row.rounds[:12]) + (" ..." if len(row.rounds) > 12 else "")
            figures = f"{middle:.3g} | {high:.3g} | {row.unit} | {len(row.rounds)}: {rounds}"
        else:
            figures = "not run | not run | | "
        held = {True: "yes", False: "no", None: ""}[row.held]
        print(f"| {row.what} | {row.goal} | {figures} | {held} | {row.load:.2f} | {row.note} |")
