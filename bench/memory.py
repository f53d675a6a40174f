"""What the idle platform with one app costs: PSS, a line per process."""

from __future__ import annotations

import re
from pathlib import Path

from bench.table import Row
from tests.given.platform import Platform

_GOAL_MIB = 300


def measure(platform: Platform) -> list[Row]:
    sizes = {pid: pss(pid) for pid in platform.processes()}
    names = platform.processes()
    rows = [
        Row(f"&nbsp; {_name(names.get(pid, ''))}", "", "MiB", [size]) for pid, size in sorted(sizes.items()) if size
    ]
    total = sum(sizes.values())
    return [Row("idle memory (PSS), one app", f"<= {_GOAL_MIB} MiB", "MiB", [total], total <= _GOAL_MIB), *rows]


def pss(pid: int) -> float:
    """The proportional share of a process in MiB; 0 for one that is gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def _name(command: str) -> str:
    words = command.split()
    if "-m" in words:
        return " ".join(words[words.index("-m") + 1 :][:2])
    return Path(words[0]).name if words else "?"
