"""`make chaos`: random faults under load and deployments for some minutes, and what each of them cost.

The same seed gives the same faults in the same order. A broken promise ends in
the table as `no` and in an exit code of 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.own_platform import started_platform
from bench.table import Row, show
from tests.given import victims
from tests.given.load import Failure, Load
from tests.given.platform import Platform, eventually
from tests.given.served import CONTROL, Served, is_whole, kill_and_bring_back

INSTANCE_FAULTS: dict[str, Callable[[Platform, str], int]] = {
    "application": victims.application,
    "shim": victims.shim,
}
FAULTS = (*CONTROL, "envoy", *INSTANCE_FAULTS)


@dataclass
class Record:
    """What one kind of fault did, over all its times."""

    back: list[float] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


class Chaos:
    """Two components, one with a single instance and one with two, each under load and deployed meanwhile."""

    def __init__(self, platform: Platform, directory: Path, seed: int) -> None:
        self._platform = platform
        self._random = random.Random(seed)
        self._pair = Served.make(platform, "pair", directory / "pair", replicas=2)
        self._single = Served.make(platform, "single", directory / "single")
        self.records = {fault: Record() for fault in FAULTS}

    def run(self, seconds: float) -> None:
        """Every fault once in a random order, and all of them again until the time is over; ends with a whole platform."""
        end = time.monotonic() + seconds
        while True:
            for fault in self._random.sample(FAULTS, len(FAULTS)):
                self._one(fault)
            if time.monotonic() >= end:
                break
        eventually(lambda: is_whole(self._platform), 60, "everything is in order again")

    def _one(self, fault: str) -> None:
        record = self.records[fault]
        with self._pair.load() as pair, self._single.load() as single:
            eventually(lambda: len(pair.answers) > 10 and len(single.answers) > 10)
            deployed = self._random.choice((self._pair, self._single))
            moment: list[float] = []
            deployed.deploy_next(lambda: moment.append(self._strike(fault)))
            eventually(lambda: is_whole(self._platform) and self._pair.ready() == 2, 60, f"{fault} is back")
            seen = len(single.answers)
            eventually(lambda: len(single.answers) > seen + 10)
        record.back.append(_back(single, moment[0]))
        record.failed += pair.failures + single.failures
        record.broken += self._judge(fault, moment[0], pair, single)

    def _strike(self, fault: str) -> float:
        """Kills at a random moment of the deployment; returns when (monotonic seconds)."""
        time.sleep(self._random.uniform(0, 0.6))
        component = self._random.choice((self._pair, self._single)).name
        pid = 0
        if fault in INSTANCE_FAULTS:
            pid = eventually(lambda: _living(INSTANCE_FAULTS[fault], self._platform, component))
        struck = time.monotonic()
        if fault == "envoy":
            victims.kill(victims.envoy(self._platform))
        elif pid:
            victims.kill(pid)
        else:
            kill_and_bring_back(self._platform, fault)
        return struck

    def _judge(self, fault: str, struck: float, pair: Load, single: Load) -> list[str]:
        """The promises: control processes cost nothing, of two instances only what was in flight is lost."""
        if fault == "envoy":
            return []
        wrong = pair.failures if fault in CONTROL else [f for f in pair.failures if not f.was_in_flight_at(struck)]
        if fault in CONTROL:
            wrong = wrong + single.failures
        return [f"{fault}: {failure.why}" for failure in wrong]


def _living(victim: Callable[[Platform, str], int], platform: Platform, component: str) -> int:
    """The pid, or 0 while a deployment swaps the instances."""
    try:
        return victim(platform, component)
    except (OSError, IndexError, KeyError, TypeError):
        return 0


def _back(load: Load, struck: float) -> float:
    """Seconds from the fault to the first good answer after the last failure; 0 when nothing failed."""
    last = max((failure.ended for failure in load.failures), default=struck)
    return last - struck


def rows(records: dict[str, Record]) -> list[Row]:
    return [
        Row(
            f"kill -9 of {fault}, {len(record.failed)} failed requests",
            "0 failed" if fault in CONTROL else "in flight only with two instances",
            "s without answers, one instance",
            record.back,
            not record.broken,
            "; ".join(record.broken[:3]),
        )
        for fault, record in records.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}")
    with started_platform() as (platform, directory):
        chaos = Chaos(platform, directory, chosen.seed)
        chaos.run(60 * chosen.minutes)
    show(rows(chaos.records))
    sys.exit(any(record.broken for record in chaos.records.values()))


if __name__ == "__main__":
    main()
