"""The supervisor behind `minuet up`: every process of the platform on one machine.

It prepares the data directory, starts the launcher if none answers, asks it for
server, builder and agent, hands each its credential, and starts again what
dies. It holds nothing that they need: when it is killed they go on, and the next
`minuet up` on the same data directory finds them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from minuet.infra import http
from minuet.kernel.errors import Conflict, Unavailable
from minuet.kernel.retry import Backoff
from minuet.launcher.client import Launcher
from minuet.server import roles
from minuet.server.installation import Installation

ROLES = ("server", "builder", "agent")
_START_SECONDS = 60.0
_LOOK_SECONDS = 0.5

Talk = Callable[[str], None]


class Supervisor:
    """Starts the platform, watches it, stops it on request."""

    def __init__(self, data: Path, installation: Installation, talk: Talk) -> None:
        self._data = data
        self._installation = installation
        self._talk = talk
        self._launcher = Launcher(data / "launcher" / "sockets" / "supervisor.sock")
        self._attempts = dict.fromkeys(ROLES, 0)

    async def start(self) -> None:
        """Returns when the API answers and every role runs; raises `Unavailable` saying what does not."""
        roles.write_settings(self._data, self._installation)
        await self._start_launcher()
        await self._launcher.start_role("server")
        await self._until_ready()
        roles.hand_over_credentials(self._data, self._installation)
        await asyncio.gather(*(self._launcher.start_role(role) for role in ROLES[1:]))

    async def watch(self) -> None:
        """Starts again whatever dies, with a back-off; returns only by cancellation."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            with contextlib.suppress(Unavailable, OSError):
                await self._look()

    async def stop(self) -> None:
        """Stops everything, workloads and gateway included; leaves no process."""
        await self._launcher.shutdown(grace=10.0)

    async def _look(self) -> None:
        if not await self._launcher_answers():
            await self._start_launcher()
        running = {state.role for state in await self._launcher.roles() if state.running}
        for role in ROLES:
            if role in running:
                self._attempts[role] = 0
                continue
            self._attempts[role] += 1
            self._talk(f"{role} stopped; starting it again (its log is {self._data / role / 'log'})")
            await asyncio.sleep(Backoff(base=0.2, cap=10.0).delay(self._attempts[role]))
            await self._launcher.start_role(role)

    async def _start_launcher(self) -> None:
        if await self._launcher_answers():
            return
        command = [sys.executable, "-m", "minuet", "launcher", "--settings", str(self._data / "launcher/settings.toml")]
        log = (self._data / "launcher" / "log").open("ab")
        subprocess.Popen(  # noqa: ASYNC220 - returns at once
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
        deadline = time.monotonic() + _START_SECONDS
        while not await self._launcher_answers():
            if time.monotonic() > deadline:
                raise Unavailable("the launcher does not start", hint=f"its log is {self._data / 'launcher' / 'log'}")
            await asyncio.sleep(0.02)

    async def _launcher_answers(self) -> bool:
        try:
            await self._launcher.roles()
        except (OSError, Unavailable):
            return False
        return True

    async def _until_ready(self) -> None:
        url = f"http://127.0.0.1:{self._installation.api_port}/readyz"
        deadline = time.monotonic() + _START_SECONDS
        async with http.client() as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(http.TransportError):
                    if (await client.get(url)).status_code == http.OK:
                        return
                await asyncio.sleep(0.02)
        raise Unavailable("the server does not answer", hint=f"its log is {self._data / 'server' / 'log'}")


@contextlib.contextmanager
def sole_supervisor(data: Path) -> Iterator[None]:
    """Holds the lock that keeps a second supervisor off one data directory."""
    data.mkdir(parents=True, exist_ok=True)
    data.chmod(0o711)
    path = data / "supervisor.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            pid = file.read().strip() or "?"
            raise Conflict(
                f"a supervisor (pid {pid}) already runs on {data}",
                code="AlreadyRunning",
                hint=f"`minuet down --data {data}` stops it",
            ) from error
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def enough_disk(data: Path, needed: int = 512 * 1024 * 1024) -> None:
    """Refuses to start on a disk too full to keep anything; raises `Unavailable`."""
    free = shutil.disk_usage(data).free
    if free < needed:
        raise Unavailable(
            f"the disk of {data} has {free // 2**20} MiB left, {needed // 2**20} MiB are needed to start",
            code="DiskFull",
            hint="free space, or choose another directory with --data",
        )
