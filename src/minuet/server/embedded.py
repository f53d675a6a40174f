"""The supervisor behind `minuet up`: every process of the platform on one machine.

It prepares the data directory, starts the launcher if none answers, asks it for
server, builder and agent, hands each its credential, and starts again what
dies. It holds nothing that they need: when it is killed they go on, and the next
`minuet up` on the same data directory finds them.
"""

from __future__ import annotations

import asyncio
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from minuet.kernel.errors import MinuetError, Unavailable
from minuet.launcher.client import Launcher, Role
from minuet.server import installation, own_logs, ports, readiness, roles, survivors
from minuet.server.installation import Installation
from minuet.server.launching import LauncherProcess

ROLES = ("server", "builder", "agent")
_START_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_PAUSE_SECONDS = 0.02
_JOIN_PAUSE_SECONDS = 0.15
"""Each look is a request to a server that starts beside builder and agent; more of them would hold those up."""

_HOPELESS_RESTARTS = 3
"""After so many attempts a server that ends by itself will not come up; its log says why."""

Talk = Callable[[str], None]


class Supervisor:
    """Starts the platform, watches it, stops it on request."""

    def __init__(self, data: Path, chosen: Installation, talk: Talk) -> None:
        self._data = data
        self._chosen = chosen
        self._talk = talk
        self._process = LauncherProcess(data)
        self._deadline = 0.0
        self.began_everything = False
        """Whether nothing of this installation ran, or was to run, before this supervisor started it."""

    @property
    def _launcher(self) -> Launcher:
        return self._process.client

    async def start(self) -> None:
        """Returns when the API answers and every role runs.

        Raises `Conflict` (`PortTaken`) when somebody else listens at one of the
        ports, and `Unavailable` saying what does not start.
        """
        self._deadline = time.monotonic() + _START_SECONDS
        await self._start_launcher()
        await self._start_roles(("server",), roles.write_first(self._data, self._chosen))
        await self._until_ready()
        told_anew = roles.write_second(self._data, self._chosen)
        roles.hand_over_credentials(self._data)
        await self._start_roles(ROLES[1:], told_anew)
        await self._until_joined()

    async def isolation(self) -> list[str]:
        """What is said at each start: the class in force, and what is missing for the best one."""
        found = await self._launcher.isolation()
        lines = [f"Isolation: class `{found['isolation']}`, control groups `{found['cgroups']}`."]
        return lines + [f"  missing for the best: {sentence}" for sentence in found["missing"]]

    async def watch(self) -> None:
        """Tells what died and was started again, and brings back a launcher that died; ends by cancellation.

        A defect of the watch itself is told and kept, and the watch goes on.
        """
        restarts: dict[str, int] = {}
        said = ""
        while True:
            try:
                await self._look(restarts)
                said = ""
            except (MinuetError, OSError) as error:
                if said != (said := str(error)):
                    self._talk(f"the watch sees nothing: {error}")
            except Exception as defect:  # noqa: BLE001 - the platform goes on, and so must its watch
                own_logs.append(self._data / own_logs.SUPERVISOR, traceback.format_exc())
                self._talk(f"a defect of the supervisor ({type(defect).__name__}: {defect}); it goes on watching")
            await asyncio.sleep(_LOOK_SECONDS)

    async def stop(self) -> None:
        """Stops everything, workloads and gateway included; raises `Unavailable` naming what is left."""
        await self._process.end_everything()

    async def _look(self, restarts: dict[str, int]) -> None:
        own_logs.keep_short(self._data)
        if not await self._process.answers():
            self._talk("the launcher stopped; starting it again")
            await self._process.start(_START_SECONDS)
        for role in await self._launcher.roles():
            if role.restarts > restarts.setdefault(role.role, role.restarts):
                restarts[role.role] = role.restarts
                self._talk(f"{role.role} stopped and was started again; see {self._log_of(role.role)}")

    async def _start_launcher(self) -> None:
        """Remembers the choices once nothing stands in their way, and brings the launcher up with them."""
        answers = await self._process.answers()
        living = not answers and bool(survivors.of(self._data))
        if not answers and not living:
            ports.check_free(self._chosen)
        installation.save(self._data, self._chosen)
        if answers:
            return
        roles.write_first(self._data, self._chosen)
        self.began_everything = not living
        await self._process.start(self._left())
        self.began_everything &= not any(role.wanted for role in await self._launcher.roles())

    async def _start_roles(self, names: tuple[str, ...], told_anew: frozenset[str]) -> None:
        """Starts what does not run, and starts anew what runs with other settings than it is told now."""
        running = {role.role for role in await self._launcher.roles() if role.running}

        async def start(name: str) -> None:
            if name in running & told_anew:
                await self._launcher.stop_role(name)
            await self._launcher.start_role(name)

        await asyncio.gather(*(start(name) for name in names))

    async def _until_ready(self) -> None:
        """Waits for our own server; whoever else answers at its port does not know the credential in our data."""
        before = await self._role("server")
        while time.monotonic() < self._deadline:
            match await readiness.of_server(self._data, self._chosen):
                case readiness.Server.OURS:
                    return
                case readiness.Server.ANOTHERS:
                    raise ports.taken(
                        "--api-port", self._chosen.listen, self._chosen.api_port, "another Minuet answers there"
                    )
                case readiness.Server.SILENT:
                    await self._check_hope(before)
            await asyncio.sleep(_PAUSE_SECONDS)
        raise Unavailable("the server does not answer", hint=f"its log is {self._log_of('server')}")

    async def _check_hope(self, before: Role) -> None:
        now = await self._role("server")
        if now.restarts - before.restarts >= _HOPELESS_RESTARTS:
            said = own_logs.last_line(self._log_of("server"))
            raise Unavailable(f"the server does not start: {said}", hint=f"its log is {self._log_of('server')}")

    async def _role(self, name: str) -> Role:
        return next(role for role in await self._launcher.roles() if role.role == name)

    async def _until_joined(self) -> None:
        """Waits for builder, agent and gateway; what stays away is told, and joins when it can."""
        while missing := await readiness.missing(self._data, self._chosen):
            if time.monotonic() > self._deadline:
                logs = ", ".join(str(self._log_of(role)) for role in missing)
                self._talk(f"{' and '.join(missing)} did not join yet; see {logs}")
                return
            await asyncio.sleep(_JOIN_PAUSE_SECONDS)

    def _log_of(self, role: str) -> Path:
        return self._data / role / "log"

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())


def enough_disk(data: Path, needed: int = 512 * 1024 * 1024) -> None:
    """Refuses to start on a disk too full to keep anything; raises `Unavailable`."""
    free = shutil.disk_usage(next(path for path in (data, *data.parents) if path.exists())).free
    if free < needed:
        raise Unavailable(
            f"the disk of {data} has {free // 2**20} MiB left, {needed // 2**20} MiB are needed to start",
            code="DiskFull",
            hint="free space, or choose another directory with --data",
        )
