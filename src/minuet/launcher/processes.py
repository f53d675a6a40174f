"""How a process is recognised again: boot, pid and start time, never a pid alone.

Used by the launcher for roles and shims that outlive it, and by the shim for
its application. Separate because a wrong answer here kills a stranger's process.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass

from minuet import system


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """One process on one boot of the machine; `start` is when the system says that it began."""

    boot: str
    pid: int
    start: int


def boot_id() -> str:
    """Identifies this boot of the machine."""
    return system.boot_id()


def mark_of(pid: int) -> ProcessMark | None:
    """Returns the mark of a living process; None for one that is gone or a zombie."""
    start = system.started_at(pid)
    return None if start is None else ProcessMark(boot_id(), pid, start)


def alive(mark: ProcessMark) -> bool:
    """Whether exactly that process still lives."""
    return mark_of(mark.pid) == mark


def send(mark: ProcessMark, number: signal.Signals) -> bool:
    """Signals exactly that process; False when it is gone.

    The watch is opened first and the mark compared after, so that a pid that
    was reused in between is never hit.
    """
    try:
        watch = system.watch(mark.pid)
    except OSError:
        return False
    try:
        if not alive(mark):
            return False
        watch.send(number)
    except ProcessLookupError:
        return False
    finally:
        watch.close()
    return True


def kill_group(group: int, number: signal.Signals) -> None:
    """Signals a process group that we made; one that is gone is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def children_of(pid: int) -> tuple[int, ...]:
    """The direct children of a process, as far as the kernel tells."""
    return system.children_of(pid)
