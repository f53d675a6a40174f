"""What only one kind of system offers, behind small functions that every kind answers.

Launcher, shims, gateway and supervisor ask here and nowhere else how a process
is watched, recognised and found. On Linux the answers come from descriptors of
processes and from `/proc`; elsewhere from signals and from `ps`. The portable
ways work on Linux as well, and `MINUET_PORTABLE=1` chooses them there: that is
how they are tested, and nothing else should set it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

IS_LINUX = sys.platform == "linux" and os.environ.get("MINUET_PORTABLE") != "1"
_LONGEST_SOCKET_PATH = 103
"""What `sun_path` holds on macOS; Linux has four bytes more."""

_LOOK_SECONDS = 0.02
_PS_SECONDS = 10.0
_LOCAL_PEERCRED = 1
_SOL_LOCAL = 0


# watching


class Watch:
    """Becomes readable when a process ends, which need not be a child; for selectors, and to wait on."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def wait(self, seconds: float) -> bool:
        """Whether it ended in time."""
        return bool(select.select([self], [], [], seconds)[0])

    def send(self, number: signal.Signals) -> None:
        """Signals exactly that process; raises `ProcessLookupError` when it is gone."""
        signal.pidfd_send_signal(self._descriptor, number)

    def close(self) -> None:
        os.close(self._descriptor)


class _SignalledWatch(Watch):
    """The same without descriptors of processes: SIGCHLD tells of children, a timer looks after the others.

    A child is reaped at once, so that its end is known; `reap` gives its status to whoever asks later.
    """

    def __init__(self, pid: int) -> None:
        self._reader, self.writer = pipe()
        super().__init__(pid, self._reader)
        _watches.add(self)

    def send(self, number: signal.Signals) -> None:
        if self.wait(0):
            raise ProcessLookupError(self.pid)
        os.kill(self.pid, number)

    def close(self) -> None:
        _watches.discard(self)
        os.close(self._reader)
        os.close(self.writer)


class _Watches:
    """The signalled watches of this process; a forked child begins with none."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._open: dict[_SignalledWatch, None] = {}
        self._statuses: dict[int, int] = {}

    def add(self, watch: _SignalledWatch) -> None:
        if self._owner != os.getpid():
            self._owner, self._open, self._statuses = os.getpid(), {}, {}
        self._open[watch] = None
        # Whoever waits in a selector is woken by these, because their handlers write into a pipe it waits on.
        signal.signal(signal.SIGCHLD, self._look)
        signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, _LOOK_SECONDS, _LOOK_SECONDS)
        self._look()

    def discard(self, watch: _SignalledWatch) -> None:
        self._open.pop(watch, None)
        if not self._open:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _look(self, *_: object) -> None:
        for watch in tuple(self._open) if self._owner == os.getpid() else ():
            if self._has_ended(watch.pid):
                del self._open[watch]
                with contextlib.suppress(OSError):
                    os.write(watch.writer, b".")

    def _has_ended(self, pid: int) -> bool:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return not is_there(pid)
        if ended:
            self._statuses[pid] = status
        return bool(ended)

    def take(self, pid: int) -> int | None:
        return self._statuses.pop(pid, None) if self._owner == os.getpid() else None


_watches = _Watches()


def watch(pid: int) -> Watch:
    """Watches a process; raises `ProcessLookupError` when there is none."""
    if IS_LINUX:
        return Watch(pid, os.pidfd_open(pid))
    if not is_there(pid):
        raise ProcessLookupError(pid)
    return _SignalledWatch(pid)


def reap(pid: int) -> int | None:
    """The wait status of a child whose watch has become readable; None for one that was not our child."""
    if (kept := _watches.take(pid)) is not None:
        return kept
    try:
        reaped, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return status if reaped else None


def is_there(pid: int) -> bool:
    """Whether a process of that number exists; a zombie still does."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


# recognising


def boot_id() -> str:
    """Identifies this boot of the machine."""
    if IS_LINUX:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return _said("sysctl", "-n", "kern.boottime" if sys.platform == "darwin" else "kernel.random.boot_id").strip()


def started_at(pid: int) -> int | None:
    """A number that no other process with this pid has on this boot; None for one that is gone or a zombie."""
    if IS_LINUX:
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    words = _said("ps", "-o", "stat=,lstart=", "-p", str(pid)).split()
    if not words or words[0].startswith("Z"):
        return None
    return int(time.mktime(time.strptime(" ".join(words[1:6]), "%a %b %d %H:%M:%S %Y")))


def peer_uid(connection: socket.socket) -> int:
    """The uid of the process at the other end of a Unix socket, as the kernel recorded it."""
    if sys.platform == "linux":
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", raw)[1])
    return uid_of_xucred(connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 76))


def uid_of_xucred(raw: bytes) -> int:
    """The uid in a `struct xucred` of macOS and the BSDs: a version, which must be 0, and the uid."""
    version, uid = struct.unpack_from("=II", raw)
    if version != 0:
        raise OSError(f"the kernel tells credentials in the unknown version {version}")
    return int(uid)


# finding


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the system's table of processes."""

    pid: int
    parent: int
    words: tuple[str, ...]


def processes() -> tuple[Process, ...]:
    """Every process that this user may see, zombies left out."""
    return _from_proc() if IS_LINUX else _from_ps()


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


def _from_ps() -> tuple[Process, ...]:
    """Words with spaces in them come apart, which `ps` does not tell."""
    rows = (line.split(None, 3) for line in _said("ps", "-axww", "-o", "pid=,ppid=,stat=,command=").splitlines())
    return tuple(
        Process(int(row[0]), int(row[1]), tuple(row[3].split()))
        for row in rows
        if len(row) > 3 and not row[2].startswith("Z")  # noqa: PLR2004 - pid, parent, state and command
    )


def children_of(pid: int) -> tuple[int, ...]:
    """The direct children of a process, as far as the system tells."""
    if not IS_LINUX:
        return tuple(process.pid for process in _from_ps() if process.parent == pid)
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return ()
    return tuple(int(word) for word in text.split())


def folder_of(pid: int) -> Path | None:
    """The working directory of a process, where the system tells."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


def _said(*command: str) -> str:
    """What a small program prints; nothing when it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PS_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


# descriptors and sockets


def pipe(*, blocking: bool = True) -> tuple[int, int]:
    """A pipe that no started program inherits."""
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, blocking)
    return reader, writer


def socket_path(folder: Path, name: str) -> str:
    """A path by which a Unix socket is reached wherever its folder lies; the system bounds its length.

    The descriptor behind a short path stays open for the life of this process.
    """
    path = folder / name
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH or not IS_LINUX:
        return str(path)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    return f"/proc/self/fd/{descriptor}/{name}"
