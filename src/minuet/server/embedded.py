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
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import httpx2

from minuet.client import contexts
from minuet.client.api import Api
from minuet.infra import http
from minuet.kernel.errors import Conflict, Unavailable
from minuet.launcher.client import Launcher
from minuet.server import roles
from minuet.server.installation import Installation

ROLES = ("server", "builder", "agent")
_START_SECONDS = 60.0
_LOOK_SECONDS = 1.0

Talk = Callable[[str], None]


class Supervisor:
    """Starts the platform, watches it, stops it on request."""

    def __init__(self, data: Path, installation: Installation, talk: Talk) -> None:
        self._data = data
        self._installation = installation
        self._talk = talk
        self._launcher = launcher_of(data)

    async def start(self) -> None:
        """Returns when the API answers and every role runs; raises `Unavailable` saying what does not."""
        roles.write_settings(self._data, self._installation)
        await self._start_launcher()
        await self._tell_isolation()
        await self._launcher.start_role("server")
        await self._until_ready()
        roles.hand_over_credentials(self._data)
        await asyncio.gather(*(self._launcher.start_role(role) for role in ROLES[1:]))
        await self._until_joined()

    async def _tell_isolation(self) -> None:
        found = await self._launcher.isolation()
        if found["missing"]:
            self._talk(f"Isolation is of the class {found['isolation']}. What is missing for the strongest:")
            for sentence in found["missing"]:
                self._talk(f"  - {sentence}")

    async def watch(self) -> None:
        """Tells what died and was started again, and brings back a launcher that died; ends by cancellation."""
        restarts: dict[str, int] = {}
        while True:
            with contextlib.suppress(Unavailable, OSError):
                if not await self._launcher_answers():
                    self._talk("the launcher stopped; starting it again")
                    await self._start_launcher()
                for role in await self._launcher.roles():
                    if role.restarts > restarts.setdefault(role.role, role.restarts):
                        restarts[role.role] = role.restarts
                        self._talk(f"{role.role} stopped and was started again; see {self._data / role.role / 'log'}")
            await asyncio.sleep(_LOOK_SECONDS)

    async def stop(self) -> None:
        """Stops everything, workloads and gateway included; leaves no process."""
        with contextlib.suppress(Unavailable, OSError):
            await self._launcher.shutdown(grace=10.0)

    async def _start_launcher(self) -> None:
        if await self._launcher_answers():
            return
        command = [sys.executable, "-m", "minuet", "launcher", "--settings", str(self._data / "launcher/settings.toml")]
        with (self._data / "launcher" / "log").open("ab") as log:
            process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
            )
        deadline = time.monotonic() + _START_SECONDS
        while not await self._launcher_answers():
            if time.monotonic() > deadline or process.poll() is not None:
                said = (self._data / "launcher" / "log").read_text(errors="replace").splitlines()[-1:]
                raise Unavailable(
                    f"the launcher does not start: {''.join(said)}", hint="`minuet doctor` checks the host"
                )
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
                with contextlib.suppress(httpx2.TransportError):
                    if (await client.get(url)).status_code == HTTPStatus.OK:
                        return
                await asyncio.sleep(0.02)
        raise Unavailable("the server does not answer", hint=f"its log is {self._data / 'server' / 'log'}")

    async def _until_joined(self) -> None:
        """Waits for builder and agent to join; what stays away is told, and joins when it can."""
        server = Api(contexts.Context(f"http://127.0.0.1:{self._installation.api_port}", roles.owner_token(self._data)))
        builder = f"http://127.0.0.1:{self._installation.builder_port}/healthz"
        deadline = time.monotonic() + _START_SECONDS
        while missing := await asyncio.to_thread(_missing, server, builder):
            if time.monotonic() > deadline:
                self._talk(f"{' and '.join(missing)} did not join yet; the log is {self._data / missing[0] / 'log'}")
                return
            await asyncio.sleep(0.05)


def _missing(server: Api, builder: str) -> list[str]:
    """The roles that have not joined the control plane yet."""
    missing = [] if _builder_joined(builder) else ["builder"]
    planes = server.pages(server.organization("data-planes"))
    return missing if all(plane["connected"] for plane in planes) else [*missing, "agent"]


def _builder_joined(address: str) -> bool:
    try:
        return bool(httpx2.get(address, trust_env=False, timeout=5).json().get("registered"))
    except (httpx2.HTTPError, ValueError):
        return False


def launcher_of(data: Path) -> Launcher:
    """The launcher's socket for supervisors, by a path that is short wherever the data directory lies."""
    folder = data / "launcher" / "sockets"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    return Launcher(f"/proc/self/fd/{descriptor}/supervisor.sock")


def save_context(data: Path, chosen: Installation) -> None:
    """Signs the person who started the platform in as its first owner; organization and project chosen there stay."""
    name = f"local-{chosen.api_port}" if chosen.api_port != Installation().api_port else "local"
    made = contexts.Context(f"http://127.0.0.1:{chosen.api_port}", roles.owner_token(data))
    known = contexts.load()[1].get(name)
    is_the_same = known is not None and (known.server, known.token) == (made.server, made.token)
    contexts.save(name, known if known is not None and is_the_same else made)


def stop_everything(data: Path, talk: Talk) -> None:
    """`minuet down`: asks the supervisor to stop, and where there is none the launcher itself."""
    supervisor = _supervisor_of(data)
    if supervisor is not None:
        _end(supervisor)
        talk("Stopped.")
        return
    try:
        asyncio.run(launcher_of(data).shutdown(grace=10.0))
    except (Unavailable, OSError):
        talk("Nothing runs here.")
        return
    talk("Stopped.")


def _end(pid: int) -> None:
    """Asks a process to stop and waits until it is gone."""
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if not select.select([descriptor], [], [], _START_SECONDS)[0]:
            raise Unavailable(f"the supervisor (pid {pid}) does not stop", hint="look at supervisor.log")
    finally:
        os.close(descriptor)


def _supervisor_of(data: Path) -> int | None:
    """The pid that holds the supervisor's lock."""
    try:
        with (data / "supervisor.lock").open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read().strip() or 0) or None
    except (FileNotFoundError, ValueError):
        return None
    return None


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
