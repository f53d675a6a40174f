"""How a process is recognised again: boot, pid and start time, never a pid alone.

Used by the launcher for roles and shims that outlive it, and by the shim for
its application. Separate because a wrong answer here kills a stranger's process.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """One process on one boot of the machine; `start` is field 22 of /proc/<pid>/stat."""

    boot: str
    pid: int
    start: int


def boot_id() -> str:
    """Identifies this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def mark_of(pid: int) -> ProcessMark | None:
    """Returns the mark of a living process; None for one that is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else ProcessMark(boot_id(), pid, int(fields[19]))


def alive(mark: ProcessMark) -> bool:
    """Whether exactly that process still lives."""
    return mark_of(mark.pid) == mark


def send(mark: ProcessMark, number: signal.Signals) -> bool:
    """Signals exactly that process; False when it is gone.

    The pidfd is opened first and the mark compared after, so that a pid that
    was reused in between is never hit.
    """
    try:
        fd = os.pidfd_open(mark.pid)
    except OSError:
        return False
    try:
        if not alive(mark):
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def kill_group(group: int, number: signal.Signals) -> None:
    """Signals a process group that we made; one that is gone is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def children_of(pid: int) -> tuple[int, ...]:
    """The direct children of a process, as far as the kernel tells."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return ()
    return tuple(int(word) for word in text.split())
