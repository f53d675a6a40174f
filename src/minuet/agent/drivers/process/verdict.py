"""What a declared health check makes of an instance: a count of answers in, a verdict out. Pure but for the note.

`follow.py` asks and shows the verdict. The note on disk lets an agent that was
restarted go on with the last verdict: an instance that serves is not taken out
because its agent was away, and one that failed is not let in.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from minuet.protocol.desired import Probe


@dataclass(frozen=True, slots=True)
class Tally:
    """The verdict, and how many answers in a row speak for it or against it."""

    healthy: bool = False
    failures: int = 0
    successes: int = 0

    def after(self, passed: bool, probe: Probe) -> Tally:
        """The tally after one more answer. The verdict turns at the check's thresholds and holds in between."""
        if passed:
            successes = self.successes + 1
            return Tally(self.healthy or successes >= probe.success_threshold, 0, successes)
        failures = self.failures + 1
        return Tally(self.healthy and failures < probe.failure_threshold, failures, 0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The last verdict on one run of an application: which process, since when, how it stood, what the check said."""

    application: object
    started: object
    healthy: bool
    said: str = ""

    def note(self, path: Path) -> None:
        """Keeps it on disk; a disk that is full costs the memory and nothing else."""
        with contextlib.suppress(OSError):
            fresh = path.with_suffix(".new")
            fresh.write_text(json.dumps(asdict(self)), encoding="utf-8")
            fresh.replace(path)


def noted(path: Path, application: object, started: object) -> Verdict | None:
    """The verdict that was kept about this very run, if there is one."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        found = Verdict(**json.loads(path.read_bytes()))
        if replace(found, healthy=True, said="") == Verdict(application, started, True):
            return found
    return None
