"""The lock that keeps a second supervisor off one data directory, and the one who holds it.

Taken by `minuet up` before it changes anything, read by `minuet down`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from minuet import system
from minuet.kernel.errors import Conflict, Forbidden, Unavailable

_FILE = "supervisor.lock"
_KILL_SECONDS = 5.0


@contextlib.contextmanager
def sole_supervisor(data: Path) -> Iterator[None]:
    """Holds the lock; raises `Conflict` (`AlreadyRunning`) when another process does, `Forbidden` for another's data."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        data.chmod(0o711)
        file = (data / _FILE).open("a+")
    except PermissionError as error:
        raise of_another(data) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise already_running(data, _pid_in(data)) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def already_running(data: Path, pid: int | None) -> Conflict:
    """The error for a second start; a platform that runs is not started again."""
    return Conflict(
        f"the platform in {data} runs already (supervisor {pid or '?'})",
        code="AlreadyRunning",
        hint=f"`minuet status` shows how it is; `minuet down --data {data}` stops it",
    )


def holder(data: Path) -> int | None:
    """The pid of the supervisor that runs on a data directory."""
    try:
        with (data / _FILE).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _pid_in(data)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise of_another(data) from error
    return None


def end(data: Path, pid: int, seconds: float) -> None:
    """Asks the supervisor to stop and waits until it is gone; raises `Unavailable` when it does not go."""
    try:
        watch = system.watch(pid)
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise of_another(data) from error
    if not watch.wait(seconds):
        raise Unavailable(
            f"the supervisor (pid {pid}) does not stop", hint=f"`kill -TERM {pid}` once more ends it the hard way"
        )


def kill(data: Path, pid: int | None) -> None:
    """Ends a supervisor, if there is one, without asking it; what it supervises goes on."""
    try:
        if pid is not None:
            watch = system.watch(pid)
            os.kill(pid, signal.SIGKILL)
            watch.wait(_KILL_SECONDS)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise of_another(data) from error


def _pid_in(data: Path) -> int | None:
    try:
        return int((data / _FILE).read_text().strip() or 0) or None
    except (OSError, ValueError):
        return None


def of_another(data: Path) -> Forbidden:
    """The error for a data directory that this user may not touch."""
    return Forbidden(
        f"{data} belongs to another user", code="NotYours", hint="run the command as the user who started the platform"
    )
