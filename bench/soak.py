"""`make soak`: redeploys for a long time, and looks whether anything grows that should not.

Counted after each redeploy: memory and descriptors of each process, processes,
instances, network devices, control groups, unpacked layers. What is bounded by
design (logs, kept releases, history) reaches its bound in the first third; after
that nothing may grow by more than a tenth.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench import memory
from bench.own_platform import started_platform
from bench.table import Row, show
from tests.given.platform import Platform
from tests.given.served import Served

GROWTH = 1.1
FEWEST_ROUNDS = 9


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at everything that might grow."""

    values: dict[str, float]

    @classmethod
    def of(cls, platform: Platform) -> Sample:
        processes = platform.processes()
        plane = platform.data / "plane"
        values = {
            "processes": float(len(processes)),
            "open descriptors": float(sum(_descriptors(pid) for pid in processes)),
            "memory (PSS, MiB)": sum(memory.pss(pid) for pid in processes),
            "instances": float(len(list((plane / "instances").iterdir()))),
            "unpacked layers": float(len(list((plane / "artifacts/layers").iterdir()))),
            "network devices": float(len(list(Path("/sys/class/net").glob(f"mn{_tag(platform)}*")))),
            "builder workspaces": float(len(list((platform.data / "builder/workspaces").iterdir()))),
        }
        return cls(values)


def _tag(platform: Platform) -> str:
    """What the installation's devices carry in their names."""
    record = json.loads((platform.data / "launcher/installation.json").read_text())
    return str(record["tag"])


def _descriptors(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def run(platform: Platform, directory: Path, seconds: float) -> list[Sample]:
    """Redeploys two builds in turn until the time is over, `FEWEST_ROUNDS` times at least."""
    served = Served.make(platform, "soaked", directory / "soaked")
    end = time.monotonic() + seconds
    samples: list[Sample] = []
    while time.monotonic() < end or len(samples) < FEWEST_ROUNDS:
        served.deploy_next()
        samples.append(Sample.of(platform))
    return samples


def rows(samples: list[Sample]) -> list[Row]:
    """One row for each thing counted: the last third beside the middle one."""
    third = len(samples) // 3
    found = []
    for name in samples[0].values:
        series = [sample.values[name] for sample in samples]
        middle, last = statistics.median(series[third : 2 * third]), statistics.median(series[2 * third :])
        ratio = last / middle if middle else float(last == 0)
        note = f"{middle:.4g} -> {last:.4g}"
        found.append(Row(name, f"<= {GROWTH:g}", "last third / middle third", [ratio], ratio <= GROWTH, note))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    minutes = parser.parse_args().minutes
    with started_platform() as (platform, directory):
        samples = run(platform, directory, 60 * minutes)
    table = rows(samples)
    print(f"{len(samples)} redeploys")
    show(table)
    sys.exit(any(row.held is False for row in table))


if __name__ == "__main__":
    main()
