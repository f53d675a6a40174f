"""One build's workspace and the commands that run in it; the only file here that asks for sandboxes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from minuet.builders.egress import Egress
from minuet.builders.failure import BuildFailure
from minuet.builders.logs import BuildLog
from minuet.infra.http import Guard
from minuet.kernel.errors import Exhausted
from minuet.launcher.client import Command, Exit, Launcher, Mount, SandboxCommand
from minuet.protocol.building import BuildLimits

PROXY = "http://127.0.0.1:3128"
_PROXIED = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), PROXY),
    "NO_PROXY": "",
    # Node.js looks at the variables above only when it is told to.
    "NODE_USE_ENV_PROXY": "1",
}
_UNRESOLVED = re.compile(
    r"(?:getaddrinfo (?:EAI_AGAIN|ENOTFOUND)|[Cc]ould not resolve host:|lookup) ([A-Za-z0-9][A-Za-z0-9-]*(?:\.[A-Za-z0-9-]+)+)"
)
"""How programs that know of no proxy say that a host has no address, which in a sandbox none has."""
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_SPOKEN_LIMIT = 64 * 1024
_ROOM_SECONDS = 0.25
_MAX_NAMED = 20
MAX_LAYERS = 3


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, and the first part of what it wrote to its standard output, where that was asked for.

    `refused` are the hosts that it reached for in vain.
    """

    exit: Exit
    output: str = ""
    refused: tuple[str, ...] = ()

    def forbidden(self) -> BuildFailure | None:
        """The failure that names the hosts that were refused, if any were."""
        if not self.refused:
            return None
        hosts = ", ".join(sorted(self.refused))
        return BuildFailure("HostForbidden", f"the build reached for {hosts}, which builds may not reach")


class Workshop:
    """A workspace of one organization, its log, and the hosts its commands may reach."""

    def __init__(self, launcher: Launcher, organization: str, path: Path, log: BuildLog, limits: BuildLimits) -> None:
        self._launcher = launcher
        self._identity = f"build:{organization}"
        self._limits = limits
        self._deadline = time.monotonic() + limits.seconds
        self.path = path
        self.log = log

    def seconds_left(self) -> float:
        """How long the build may still take; raises `BuildFailure` when that is over. For any thread."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise BuildFailure("BuildTimedOut", f"the build took longer than {self._limits.seconds:.0f} s")
        return left

    def close(self) -> None:
        """Ends what still runs beside the event loop for this build."""
        self._deadline = 0.0

    async def run(
        self,
        argv: tuple[str, ...],
        *,
        mounts: tuple[Mount, ...],
        cwd: str,
        environment: Mapping[str, str] | None = None,
        hosts: frozenset[str] | None = None,
        guard: Guard | None = None,
        listen: bool = False,
        identity: str | None = None,
        stdin: int | None = None,
        stdout: int | None = None,
    ) -> Done:
        """Runs a command and streams what it says into the log; raises `BuildFailure` when a limit ended it.

        With `hosts`, those are reachable through a proxy and nothing else is, which is told of every
        other one; a `guard` looks at the address each of them turns out to have. Without, there is no network.
        With `listen`, standard output is returned instead of logged; with `stdout`
        it goes to that descriptor.
        """
        network = {} if hosts is None else _PROXIED
        certificates = {"SSL_CERT_FILE": _CERTIFICATES, "GIT_SSL_CAINFO": _CERTIFICATES}
        command = SandboxCommand(
            identity=identity or self._identity,
            argv=argv,
            env={**certificates, **network, **(environment or {})},
            cwd=cwd,
            mounts=mounts,
            network="none" if hosts is None else "proxy",
            memory=self._limits.memory,
            processes=self._limits.processes,
            disk=self._limits.disk,
        )
        egress = Egress(hosts or frozenset(), guard)
        done = await self._execute(command, egress, listen=listen, stdin=stdin, stdout=stdout)
        self._check(done.exit)
        refused = tuple(dict.fromkeys([*egress.refused, *(_unresolved(self.log.said) if done.exit.code else ())]))
        return replace(done, refused=refused)

    async def _execute(
        self, command: SandboxCommand, egress: Egress, *, listen: bool, stdin: int | None, stdout: int | None
    ) -> Done:
        reader = writer = None
        if listen:
            reader, writer = os.pipe()
        try:
            running = await self._start(command, stdin, writer if listen else stdout)
        finally:
            if writer is not None:
                os.close(writer)
        async with running:
            if running.proxy_listener is not None:
                await egress.serve(running.proxy_listener)
            spoken = asyncio.create_task(asyncio.to_thread(_read_all, reader)) if reader is not None else None
            try:
                async for data in running.output:
                    self.log.feed(data)
                self.log.flush()
            finally:
                # Before the command lets go of the listener, which is the sandbox's, also when the build is cancelled:
                # the number of its descriptor would be somebody else's, and the loop would still listen for this one.
                await egress.close()
            return Done(await running.wait(), await spoken if spoken else "")

    async def _start(self, command: SandboxCommand, stdin: int | None, stdout: int | None) -> Command:
        """Waits for room among the commands of this machine as long as the build has time."""
        while True:
            left = self.seconds_left()
            try:
                return await self._launcher.run(replace(command, seconds=left), stdin=stdin, stdout=stdout)
            except Exhausted as error:
                if error.code != "TooManyCommands":
                    raise
            await asyncio.sleep(min(left, _ROOM_SECONDS))

    def _check(self, ended: Exit) -> None:
        if ended.out_of_memory:
            raise BuildFailure(
                "BuildOutOfMemory", f"the build used more than its {self._limits.memory // 2**20} MiB of memory"
            )
        if ended.timed_out:
            raise BuildFailure("BuildTimedOut", f"the build took longer than {self._limits.seconds:.0f} s")
        if ended.disk_full or ended.signal == signal.SIGXFSZ:
            raise BuildFailure("BuildDiskFull", f"the build wrote more than {self._limits.disk // 2**20} MiB")
        if not ended.set_up:
            raise BuildFailure("BuildFailed", "the sandbox of the build could not be set up")


def _unresolved(said: str) -> list[str]:
    return _UNRESOLVED.findall(said)[:_MAX_NAMED]


def _read_all(descriptor: int) -> str:
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(_SPOKEN_LIMIT)
        while file.read(_SPOKEN_LIMIT):
            continue
    return data.decode(errors="replace")


@contextlib.asynccontextmanager
async def open_workshop(
    launcher: Launcher, organization: str, log: BuildLog, limits: BuildLimits, ledger: Path
) -> AsyncIterator[Workshop]:
    """Makes a workspace and removes it again, whatever happened in it.

    Its folders are made inside a sandbox, because only the organization's own
    uid may own what its builds write. What is open is written down in `ledger`.
    """
    path = await launcher.make_workspace(organization)
    (ledger / path.name).write_text(str(path))
    workshop = Workshop(launcher, organization, path, log, limits)
    try:
        folders = ("source", "work", *(f"layers/{number}" for number in range(MAX_LAYERS)))
        await workshop.run(
            ("/bin/mkdir", "-p", *(f"/workspace/{name}" for name in folders)),
            mounts=(Mount(str(path), "/workspace", writable=True),),
            cwd="/workspace",
        )
        yield workshop
    finally:
        workshop.close()
        await _remove(launcher, ledger / path.name)


async def remove_left_over(launcher: Launcher, ledger: Path) -> None:
    """Removes the workspaces that a builder before this one did not come to remove."""
    for mark in sorted(ledger.iterdir()):
        await _remove(launcher, mark)


async def _remove(launcher: Launcher, mark: Path) -> None:
    await launcher.remove_workspace(Path(mark.read_text()))
    mark.unlink(missing_ok=True)
