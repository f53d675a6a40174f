"""`minuet up --detach`: a supervisor in a session of its own, and the wait for its first words.

The child is the same command in the foreground; what it says goes to
`supervisor.log`, from where it is passed on until the platform is up.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from minuet.kernel.errors import Unavailable
from minuet.server import greeting, lock, own_logs
from minuet.server.embedded import Talk
from minuet.server.launching import SHUTDOWN_SECONDS, LauncherProcess

_START_SECONDS = 120.0
"""A start takes at most a minute and says itself why it failed; this is for a supervisor that hangs."""

_LOOK_SECONDS = 0.05


def start(data: Path, arguments: Sequence[str], talk: Talk) -> int:
    """Returns 0 when the platform is up, else the exit code of the start that failed, which has said why.

    Raises `Conflict` (`AlreadyRunning`) for a platform that has a supervisor already.
    """
    if (pid := lock.holder(data)) is not None:
        raise lock.already_running(data, pid)
    data.mkdir(parents=True, exist_ok=True)
    own_logs.keep_short(data)
    ran_before = asyncio.run(LauncherProcess(data).answers())
    command = [sys.executable, "-m", "minuet.cli.main", "up", "--data", str(data), *arguments]
    with (data / own_logs.SUPERVISOR).open("ab") as log:
        position = log.tell()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        return _follow(data, position, child, talk)
    except BaseException:
        _take_back(child, ran_before=ran_before)
        raise


def _follow(data: Path, position: int, child: subprocess.Popen[bytes], talk: Talk) -> int:
    """Passes on what the child says, line by line, until it is up or has ended."""
    deadline = time.monotonic() + _START_SECONDS
    rest = b""
    with (data / own_logs.SUPERVISOR).open("rb") as log:
        log.seek(position)
        while time.monotonic() < deadline:
            code = child.poll()
            *lines, rest = (rest + log.read()).split(b"\n")
            for line in lines:
                talk(line.decode(errors="replace"))
                if line.startswith(greeting.UP.encode()):
                    return 0
            if code is not None:
                return code or 1
            time.sleep(_LOOK_SECONDS)
    raise Unavailable("the platform did not answer in time", hint=f"its log is {data / own_logs.SUPERVISOR}")


def _take_back(child: subprocess.Popen[bytes], *, ran_before: bool) -> None:
    """Ends a supervisor that nobody waits for any more.

    Asked to stop it stops everything it supervises, which is right for what it
    began itself; what ran before is kept by ending the supervisor alone.
    """
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGKILL if ran_before else signal.SIGTERM)
    try:
        child.wait(SHUTDOWN_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()


def arguments_of(choices: dict[str, object]) -> list[str]:
    """The choices of this start as the flags that make them."""
    found = []
    for name, value in choices.items():
        if isinstance(value, bool):
            found.append("--allow-local-repositories" if value else "--refuse-local-repositories")
        elif value is not None:
            found += [f"--{name.replace('_', '-')}", str(value)]
    return found
