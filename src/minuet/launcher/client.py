"""How the other processes ask the launcher, on asyncio. The only file of this room they import.

Each request takes a connection of its own, so that a slow one never stands in
the way of another. Errors come back as the families of the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from minuet import system
from minuet.kernel.errors import (
    Conflict,
    Exhausted,
    Forbidden,
    Invalid,
    MinuetError,
    NotFound,
    Unavailable,
)  # fmt: skip
from minuet.launcher import requests, wire
from minuet.launcher.requests import LayerMount, SandboxCommand, Sealable, StartInstance
from minuet.launcher.sandbox import Mount

__all__ = ["Command", "Exit", "Launcher", "LayerMount", "Mount", "Role", "SandboxCommand", "Sealable", "StartInstance"]

_FAMILIES: dict[str, type[MinuetError]] = {
    **dict.fromkeys(("Invalid", "BadRequest", "BadArchive", "BadDigest", "BadCiphertext"), Invalid),
    **dict.fromkeys(("Forbidden", "NotAllowed"), Forbidden),
    **dict.fromkeys(
        ("Conflict", "Stopping", "ShuttingDown", "AlreadyRunning", "InstancesExist", "LayerInUse"), Conflict
    ),
    **dict.fromkeys(("NotFound", "LayerMissing", "SettingsNotFound"), NotFound),
    **dict.fromkeys(
        ("Exhausted", "NoCapacity", "NoIdentity", "ArchiveTooLarge", "DiskFull", "TooManyCommands"), Exhausted
    ),
}
_PIPE_CHUNK = 64 * 1024
_ANSWER_SECONDS = 30.0
"""What is answered from memory takes milliseconds, a birth at most two waits of 5 s for its predecessor."""

_SETTLE_SECONDS = 15.0
"""Beyond the grace of a stop: 2 s until the launcher kills, 3 s until the kernel is done, and room."""

_SHUTDOWN_SECONDS = 60.0
"""Beyond the grace of a shutdown: hundreds of instances end one beside the other."""

_REMOVAL_SECONDS = 60.0
"""An end without grace, and the files of one instance or the logs of one workload."""

_FILES_SECONDS = 600.0
"""The largest archive has 400,000 entries and 4 GiB: minutes on a slow disk, to unpack as to remove."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended; at most one of the reasons explains it. Bytes and seconds."""

    code: int
    signal: int | None = None
    out_of_memory: bool = False
    timed_out: bool = False
    disk_full: bool = False
    killed: bool = False
    set_up: bool = True
    peak_memory: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance is dialled: an address, and the real port for each declared one where they differ."""

    address: str
    ports: dict[int, int] = field(default_factory=dict)


def place_of(answer: wire.Message) -> Place:
    """Reads it from an answer of the launcher; JSON knows no numbers as keys."""
    return Place(str(answer["address"]), {int(declared): real for declared, real in answer["ports"].items()})


@dataclass(frozen=True, slots=True)
class Role:
    """A long-lived part of the platform as the launcher sees it."""

    role: str
    pid: int | None
    wanted: bool
    started_at: float | None
    restarts: int
    exit_code: int | None
    log: str

    @property
    def running(self) -> bool:
        return self.pid is not None


class _Connection:
    """One connection: documents out, documents and descriptors in."""

    def __init__(self, channel: wire.Channel) -> None:
        self._channel = channel
        self._pending: list[tuple[wire.Message, list[int]]] = []

    @classmethod
    async def open(cls, path: str) -> _Connection:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, path)
        except OSError as error:
            connection.close()
            raise Unavailable(
                f"the launcher does not answer: {error}", code="LauncherUnavailable", hint="is `minuet up` running?"
            ) from error
        return cls(wire.Channel(connection))

    async def send(self, message: wire.Message, fds: tuple[int, ...] = ()) -> None:
        try:
            self._channel.send(message, fds)
            while not self._channel.flush():
                await self._until(writable=True)
        except wire.PeerGone as error:
            raise _gone() from error

    async def receive(self) -> tuple[wire.Message, list[int]]:
        """The next document; an `error` in it is raised as one of the kernel's families."""
        while not self._pending:
            await self._until(writable=False)
            try:
                self._pending += self._channel.receive()
            except wire.PeerGone as error:
                raise _gone() from error
        message, fds = self._pending.pop(0)
        if "error" in message:
            raise _as_error(message["error"])
        return message, fds

    async def _until(self, *, writable: bool) -> None:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        add, remove = (loop.add_writer, loop.remove_writer) if writable else (loop.add_reader, loop.remove_reader)
        add(self._channel.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            remove(self._channel.fileno())

    def close(self) -> None:
        self._channel.close()


def _gone() -> Unavailable:
    return Unavailable("the launcher closed the connection", code="LauncherUnavailable")


def _as_error(error: dict[str, Any]) -> MinuetError:
    family = _FAMILIES.get(error["code"], Unavailable)
    return family(error["message"], code=error["code"], hint=error.get("hint"))


class Command:
    """A command that runs in a sandbox: read its output, wait for its end, or kill it."""

    def __init__(self, connection: _Connection, output: int | None, listener: socket.socket | None) -> None:
        self._connection = connection
        self._output = output
        self._exit: Exit | None = None
        self.proxy_listener = listener

    @property
    async def output(self) -> AsyncIterator[bytes]:
        """What the command says, stdout and stderr merged, until both are closed; readable once."""
        if self._output is None:
            return
        fd, self._output = self._output, None
        reader = asyncio.StreamReader(limit=_PIPE_CHUNK)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
        )
        try:
            while data := await reader.read(_PIPE_CHUNK):
                yield data
        finally:
            transport.close()

    async def wait(self) -> Exit:
        """Returns how it ended; raises `Unavailable` when its runner was lost."""
        if self._exit is None:
            message, _ = await self._connection.receive()
            self._exit = Exit(**message["exit"])
            self._close()
        return self._exit

    async def kill(self) -> None:
        """Kills every process of the command; `wait` then tells the end."""
        if self._exit is None:
            with contextlib.suppress(Unavailable):
                await self._connection.send({"ask": "kill"})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leaving early kills."""
        self._close()

    def _close(self) -> None:
        self._connection.close()
        if self._output is not None and self._exit is None:
            os.close(self._output)
            self._output = None
        if self.proxy_listener:
            self.proxy_listener.close()


def patience(request: requests.Request) -> float | None:
    """Seconds after which an answer is not waited for any more; None for one that comes at the next change."""
    match request:
        case requests.ListRoles(after=int()):
            return None
        case requests.StopInstance() | requests.StopRole():
            return request.grace + _SETTLE_SECONDS
        case requests.Shutdown():
            return request.grace + _SHUTDOWN_SECONDS
        case requests.RemoveInstance() | requests.ForgetWorkload():
            return _REMOVAL_SECONDS
        case requests.Unpack() | requests.RemoveLayer() | requests.RemoveWorkspace():
            return _FILES_SECONDS
        case _:
            return _ANSWER_SECONDS


@contextlib.asynccontextmanager
async def _bounded(request: requests.Request) -> AsyncIterator[None]:
    seconds = patience(request)
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Unavailable(
            f"the launcher did not answer {type(request).__name__} within {seconds:.0f} s", code="LauncherUnavailable"
        ) from error


class Launcher:
    """Asks over one role's socket; what that role may not ask is refused by the launcher."""

    def __init__(self, socket_path: Path | str) -> None:
        self._path = str(socket_path)

    async def _ask(self, request: requests.Request, fds: tuple[int, ...] = ()) -> wire.Message:
        """Raises the error of the answer, or `Unavailable` when there is none in the time that the request may take."""
        async with _bounded(request):
            connection = await _Connection.open(self._path)
            try:
                await connection.send(requests.encode(request), fds)
                return (await connection.receive())[0]
            finally:
                connection.close()

    # supervisor

    async def start_role(self, role: str) -> Role:
        return Role(**await self._ask(requests.StartRole(role)))

    async def stop_role(self, role: str, grace: float = 10.0) -> None:
        await self._ask(requests.StopRole(role, grace))

    async def roles(self) -> tuple[Role, ...]:
        return tuple(Role(**item) for item in (await self._ask(requests.ListRoles()))["roles"])

    async def role_changes(self) -> AsyncIterator[tuple[Role, ...]]:
        """Yields the roles now, and again whenever one started, ended or changed."""
        seen: int | None = None
        while True:
            answer = await self._ask(requests.ListRoles(seen))
            seen = answer["change"]
            yield tuple(Role(**item) for item in answer["roles"])

    async def shutdown(self, grace: float = 10.0) -> None:
        """Returns when nothing of the installation runs but the launcher, which then ends."""
        await self._ask(requests.Shutdown(grace))

    # agent

    async def start_gateway(self) -> Role:
        return await self.start_role("gateway")

    async def start_instance(self, order: StartInstance) -> Place:
        """Returns where the instance is dialled; its shim then tells everything else."""
        return place_of(await self._ask(order))

    async def stop_instance(self, instance: str, grace: float = 10.0) -> None:
        await self._ask(requests.StopInstance(instance, grace))

    async def remove_instance(self, instance: str) -> None:
        await self._ask(requests.RemoveInstance(instance))

    async def forget_workload(self, key: str) -> None:
        """Removes the workload's logs and gives its uid back."""
        await self._ask(requests.ForgetWorkload(key))

    async def instances(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._ask(requests.ListInstances()))["instances"]
        return found

    async def unpack(self, tar: int, digest: str) -> Path:
        """Unpacks the archive behind a descriptor; returns the folder, at once when it is there already."""
        return Path((await self._ask(requests.Unpack(digest), (tar,)))["path"])

    async def layers(self) -> frozenset[str]:
        return frozenset((await self._ask(requests.ListLayers()))["layers"])

    async def remove_layer(self, digest: str) -> None:
        await self._ask(requests.RemoveLayer(digest))

    async def isolation(self) -> dict[str, Any]:
        """The class in force (`isolation`), what is `missing` for the best, and the kind of `cgroups`."""
        return await self._ask(requests.Isolation())

    # builder

    async def make_workspace(self, organization_id: str) -> Path:
        return Path((await self._ask(requests.MakeWorkspace(organization_id)))["path"])

    async def remove_workspace(self, path: Path) -> None:
        await self._ask(requests.RemoveWorkspace(str(path)))

    async def run(self, command: SandboxCommand, *, stdin: int | None = None, stdout: int | None = None) -> Command:
        """Starts a command. With `stdout`, standard output goes there and only stderr to `output`.

        The descriptors are copied; the caller closes its own. Leaving `stdin`
        out gives the command an empty one.
        """
        reader, writer = system.pipe()
        given = {"stdin": stdin, "stdout": stdout, "output": writer}
        streams = {name: fd for name, fd in given.items() if fd is not None}
        try:
            connection, fds = await self._start_command(replace(command, streams=tuple(streams)), streams)
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        listener = socket.socket(fileno=fds[0]) if fds else None
        if listener:
            listener.setblocking(False)
        return Command(connection, reader, listener)

    async def _start_command(self, request: SandboxCommand, streams: dict[str, int]) -> tuple[_Connection, list[int]]:
        """Returns when the command has started: the connection that tells its end, and what came along."""
        async with _bounded(request):
            connection = await _Connection.open(self._path)
            try:
                await connection.send(requests.encode(request), tuple(streams.values()))
                _, fds = await connection.receive()
            except BaseException:
                connection.close()
                raise
            return connection, fds
