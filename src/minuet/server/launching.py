"""The launcher as a process: started, waited for, asked to end everything, and never left behind.

Used by the supervisor and by `minuet down`. What the launcher is asked goes
through its client; this file is about the process itself, and about what is
left when it does not do what it should.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from minuet import system
from minuet.kernel.errors import Conflict, NotFound, Unavailable
from minuet.launcher.client import Launcher
from minuet.server import installation, lock, own_logs, survivors

GRACE_SECONDS = 10.0
"""What workloads and roles get between SIGTERM and SIGKILL."""

SHUTDOWN_SECONDS = 40.0
"""After this long a shutdown has failed: the grace twice, the gateway's draining, and time for a slow machine."""

_BIRTH_SECONDS = 5.0
_TERM_SECONDS = 3.0
_RESUME_SECONDS = 30.0
_PAUSE_SECONDS = 0.02


class LauncherProcess:
    """The launcher of one data directory, whether we started it or found it."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._child: subprocess.Popen[bytes] | None = None

    @functools.cached_property
    def client(self) -> Launcher:
        """The launcher's socket for supervisors; its folder must be there."""
        return Launcher(system.socket_path(self._sockets, "supervisor.sock"))

    @property
    def _sockets(self) -> Path:
        return self._data / "launcher" / "sockets"

    async def answers(self) -> bool:
        """Whether a launcher serves; raises `Forbidden` when it is another user's."""
        try:
            if not self._sockets.is_dir():
                return False
            await self.client.roles()
        except (Unavailable, OSError) as error:
            if isinstance(error, PermissionError) or isinstance(error.__cause__, PermissionError):
                raise lock.of_another(self._data) from error
            return False
        return True

    async def start(self, seconds: float) -> None:
        """Starts it and waits until it answers; raises `Unavailable` with its last word, and leaves none behind."""
        self._sockets.mkdir(parents=True, exist_ok=True)
        settings = self._data / "launcher" / "settings.toml"
        with (self._data / own_logs.LAUNCHER).open("ab") as log:
            self._child = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                [sys.executable, "-m", "minuet", "launcher", "--settings", str(settings)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            )  # fmt: skip
        deadline = time.monotonic() + seconds
        while not await self.answers():
            if self._child.poll() is not None or time.monotonic() > deadline:
                self._end_child()
                said = own_logs.last_line(self._data / own_logs.LAUNCHER)
                raise Unavailable(f"the launcher does not start: {said}", hint="`minuet doctor` checks the host")
            await asyncio.sleep(_PAUSE_SECONDS)

    async def end_everything(self) -> bool:
        """Ends every process of the installation; returns whether there was any.

        A launcher that was only just started is waited for, one that died is
        started again, because it alone knows how to end what it started. Raises
        `Unavailable` naming what lives on after `SHUTDOWN_SECONDS`.
        """
        if not await self._comes_to_answer() and not survivors.of(self._data):
            self._end_child()
            return False
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                await self._ask_to_end()
        left = await self._until_gone(deadline)
        self._end_child()
        if left:
            raise Unavailable(
                f"still running after {SHUTDOWN_SECONDS:g} s: {', '.join(map(str, left))}",
                code="StillRunning",
                hint=f"`minuet down --data {self._data} --now` ends them the hard way",
            )
        return True

    async def _until_gone(self, deadline: float) -> tuple[survivors.Survivor, ...]:
        """What is left at a moment of `time.monotonic()`; usually nothing, and long before it."""
        while True:
            left = survivors.of(self._data)
            if not left or time.monotonic() > deadline:
                return left
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _comes_to_answer(self) -> bool:
        """Waits a little for a launcher that lives but has no socket yet."""
        deadline = time.monotonic() + _BIRTH_SECONDS
        while not (there := await self.answers()) and self._child is not None and self._child.poll() is None:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(_PAUSE_SECONDS)
        return there

    async def _ask_to_end(self) -> None:
        if not await self.answers():
            await self.start(_RESUME_SECONDS)
        # Somebody else may have asked already, and a launcher that has ended closes the connection.
        with contextlib.suppress(Conflict, Unavailable, OSError):
            await self.client.shutdown(grace=GRACE_SECONDS)

    def _end_child(self) -> None:
        """Makes sure that the process we started is gone; what it started is not touched by it."""
        if self._child is None:
            return
        for end in (self._child.terminate, self._child.kill):
            if self._child.poll() is None:
                end()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._child.wait(_TERM_SECONDS)


def end_installation(data: Path, talk: Callable[[str], None], *, now: bool) -> None:
    """`minuet down`: asks the supervisor to stop, and where there is none the launcher itself.

    `now` ends every process at once instead. Raises `NotFound` for a directory without an installation.
    """
    if not (data / installation.FILE).exists() and not (data / "launcher").exists():
        raise NotFound(f"there is no installation in {data}", hint="name its directory with --data")
    supervisor = lock.holder(data)
    if now:
        lock.kill(data, supervisor)
        survivors.kill(data)
        talk("Killed.")
        return
    if supervisor is not None:
        lock.end(data, supervisor, SHUTDOWN_SECONDS + _BIRTH_SECONDS + _TERM_SECONDS)
        talk("Stopped.")
        return
    talk("Stopped." if asyncio.run(LauncherProcess(data).end_everything()) else f"Nothing of {data} runs.")
