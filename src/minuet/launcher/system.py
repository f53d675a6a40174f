"""What only one kind of system offers, behind small functions that every kind answers.

The launcher, its shims and the supervisor ask here and nowhere else. On Linux
processes are watched by descriptors and read from `/proc`; elsewhere they are
looked at again and again, and read from `ps`. The portable ways work on Linux
as well, which is how they are tested.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

_LONGEST_SOCKET_PATH = 103
"""What `sun_path` holds on macOS; Linux has four bytes more."""

_LOOK_SECONDS = 0.02


class Watch:
    """Waits for the end of a process, which need not be a child."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def wait(self, seconds: float) -> bool:
        """Whether it ended in time."""
        deadline = time.monotonic() + seconds
        while is_there(self.pid):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK_SECONDS)
        return True


class _DescriptorWatch(Watch):
    """The same by a descriptor of the process, which no other process with its pid can take over."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self._fd = os.pidfd_open(pid)

    def wait(self, seconds: float) -> bool:
        return bool(select.select([self._fd], [], [], seconds)[0])

    def __del__(self) -> None:
        fd = getattr(self, "_fd", None)
        if fd is not None:
            os.close(fd)


def watch(pid: int) -> Watch:
    """Watches a process; raises `ProcessLookupError` when there is none."""
    if hasattr(os, "pidfd_open"):
        return _DescriptorWatch(pid)
    if not is_there(pid):
        raise ProcessLookupError(pid)
    return Watch(pid)


def is_there(pid: int) -> bool:
    """Whether a process of that number exists; a zombie still does."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def socket_path(folder: Path, name: str) -> str:
    """A path by which a Unix socket is reached wherever its folder lies; the system bounds its length.

    The descriptor behind a short path stays open for the life of this process.
    """
    path = folder / name
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH or not hasattr(os, "O_PATH"):
        return str(path)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    return f"/proc/self/fd/{descriptor}/{name}"


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the system's table of processes."""

    pid: int
    parent: int
    words: tuple[str, ...]


def processes() -> tuple[Process, ...]:
    """Every process that this user may see, zombies left out."""
    return _from_proc() if Path("/proc/self/stat").exists() else from_ps()


def _from_proc() -> tuple[Process, ...]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            words = (entry / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
        except (OSError, ValueError):
            continue
        if state not in "ZX":
            found.append(Process(int(entry.name), int(parent), tuple(words)))
    return tuple(found)


def from_ps() -> tuple[Process, ...]:
    """The same from `ps`, which every system has; words with spaces in them come apart."""
    done = subprocess.run(
        ["ps", "-axww", "-o", "pid=,ppid=,stat=,command="], capture_output=True, text=True, check=False
    )
    rows = (line.split(None, 3) for line in done.stdout.splitlines())
    return tuple(
        Process(int(row[0]), int(row[1]), tuple(row[3].split()))
        for row in rows
        if len(row) > 3 and not row[2].startswith("Z")  # noqa: PLR2004 - pid, parent, state and command
    )


def folder_of(pid: int) -> Path | None:
    """The working directory of a process, where the system tells."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None
