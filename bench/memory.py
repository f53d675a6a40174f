"""What the idle platform with one app costs: PSS, a line per process."""

from __future__ import annotations

import re
from pathlib import Path

from bench.table import Row
from tests.given.platform import Platform

_GOAL_MIB = 300


def measure(platform: Platform) -> list[Row]:
    rows = []
    total = 0.0
    for pid, command in sorted(platform.processes().items()):
        found = re.search(r"^Pss:\s+(\d+) kB", _rollup(pid), re.MULTILINE)
        if not found:
            continue
        size = int(found[1]) / 1024
        total += size
        rows.append(Row(f"&nbsp; {_name(command)}", "", "MiB", [size]))
    return [Row("idle memory (PSS), one app", f"<= {_GOAL_MIB} MiB", "MiB", [total], total <= _GOAL_MIB), *rows]


def _rollup(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return ""


def _name(command: str) -> str:
    words = command.split()
    if "-m" in words:
        return " ".join(words[words.index("-m") + 1 :][:2])
    return Path(words[0]).name if words else "?"
