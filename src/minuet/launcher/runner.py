"""One command in a sandbox for the builder: limits kept, reasons told, output passed straight through.

The launcher forks a runner for each `SandboxCommand` and hands over the
builder's connection: what the builder hears (`started`, `exit`) and how it
kills (by closing) needs the launcher no more. Like a shim it is root only
until the network and the control group are there.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from minuet import system
from minuet.kernel.errors import MinuetError
from minuet.launcher import cgroups, confinement, network, sandbox, syscalls, wire
from minuet.launcher.identities import Identity
from minuet.launcher.requests import SandboxCommand
from minuet.launcher.trees import open_to_group, size_of

PROXY_PORT = 3128
_BACKLOG = 128
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
_CHECK_EVERY = 0.2
_WALK_EVERY = 10.0
_WALK_SHARE = 10
"""A walk over the files may take a tenth of the time, no more."""

_CHANNEL_FD = 3
_FIRST_STREAM_FD = 4


@dataclass(frozen=True, slots=True)
class Task:
    """A command with all that the launcher decides about it."""

    name: str
    command: SandboxCommand
    identity: Identity
    isolation: str
    hierarchy: cgroups.Hierarchy


def become_runner(task: Task, connection: socket.socket, fds: list[int]) -> NoReturn:
    """The whole life of the forked child."""
    channel: wire.Channel | None = None
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        channel = _keep_only(connection, len(fds), fds)
        streams = {name: _FIRST_STREAM_FD + index for index, name in enumerate(task.command.streams)}
        _Runner(task, channel, streams).run()
    except (MinuetError, OSError) as error:
        _tell(channel, getattr(error, "code", "StartFailed"), str(error))
    except BaseException as error:  # noqa: BLE001 - a forked child must end here, whatever happened
        _tell(channel, "LauncherFailed", f"{type(error).__name__}: {error}")
    os._exit(0)


def _tell(channel: wire.Channel | None, code: str, message: str) -> None:
    if channel is not None:
        with contextlib.suppress(wire.PeerGone):
            channel.send({"error": {"code": code, "message": message}})


def _keep_only(connection: socket.socket, count: int, fds: list[int]) -> wire.Channel:
    """Moves the connection and the streams to fixed numbers and closes all other descriptors."""
    high = [os.dup(fd) for fd in (connection.fileno(), *fds)]
    high += [os.open(os.devnull, os.O_RDWR) for _ in range(_FIRST_STREAM_FD + count)]
    spare = [os.dup(fd) for fd in high[: count + 1]]
    for number in (0, 1, 2):
        os.dup2(high[-1], number)
    for index, fd in enumerate(spare):
        os.dup2(fd, _CHANNEL_FD + index, inheritable=False)
    os.closerange(_FIRST_STREAM_FD + count, os.sysconf("SC_OPEN_MAX"))
    return wire.Channel(socket.socket(fileno=_CHANNEL_FD))


class _Runner:
    def __init__(self, task: Task, channel: wire.Channel, streams: dict[str, int]) -> None:
        self._task = task
        self._channel = channel
        self._streams = streams
        self._selector = selectors.DefaultSelector()
        self._timed_out = self._disk_full = self._killed = False

    def run(self) -> None:
        task, command = self._task, self._task.command
        os.umask(0o022)
        limits = cgroups.Limits(command.cpu, command.memory, command.processes)
        group = task.hierarchy.make(task.name, limits, task.identity.uid)
        group.shelter()
        listener = self._network()
        os.umask(0o007)
        syscalls.adopt_orphans()
        task.identity.assume()
        syscalls.not_traceable()
        writable = [Path(mount.source) for mount in command.mounts if mount.writable]
        watch = DiskWatch(writable, command.disk)
        started = time.monotonic()
        child = confinement.start(self._plan(), task.isolation, group, self._take_streams(), _rlimits(task))
        self._channel.send({"started": {"pid": child.pid}}, (listener.fileno(),) if listener else ())
        if listener:
            listener.close()
        status = self._wait(child, group, watch, started)
        seconds = time.monotonic() - started
        _kill(child, group)
        self._disk_full |= watch.exceeds(open_to_group(*writable))
        self._report(child, group, status, seconds)

    def _report(self, child: confinement.Child, group: cgroups.Group, status: int, seconds: float) -> None:
        code = os.waitstatus_to_exitcode(status)
        signalled = -code if code < 0 else code - 128 if code > 128 else None  # noqa: PLR2004 - a shell's convention
        failed = code != 0
        report = {
            "code": 128 - code if code < 0 else code,
            "signal": signalled,
            "out_of_memory": failed and group.out_of_memory_kills() > 0,
            "timed_out": self._timed_out,
            "disk_full": self._disk_full,
            "killed": self._killed,
            "set_up": child.was_set_up() or self._timed_out or self._killed or self._disk_full,
            "peak_memory": group.peak_memory(),
            "seconds": round(seconds, 3),
        }
        with contextlib.suppress(wire.PeerGone):
            self._channel.connection.setblocking(True)
            self._channel.send({"exit": report})

    def _network(self) -> socket.socket | None:
        """Loopback only; for `proxy` with one listener, which the builder serves from outside."""
        network.isolate()
        if self._task.command.network != "proxy":
            return None
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", PROXY_PORT))
        listener.listen(_BACKLOG)
        return listener

    def _plan(self) -> sandbox.Plan:
        command = self._task.command
        environment = sandbox.base_environment(_SYSTEM_PATH)
        return sandbox.Plan(
            command.argv, environment | command.env, command.cwd, command.mounts,
            tmp_bytes=command.tmp_bytes, host_name="build",
        )  # fmt: skip

    def _take_streams(self) -> confinement.Streams:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        output = self._streams.get("output", nothing)
        return confinement.Streams(self._streams.get("stdin", nothing), self._streams.get("stdout", output), output)

    def _wait(self, child: confinement.Child, group: cgroups.Group, watch: DiskWatch, started: float) -> int:
        """Returns the wait status; ends the command early when a limit is passed or the builder is gone."""
        for fd in set(self._streams.values()):
            os.close(fd)
        ended = system.watch(child.pid)
        self._selector.register(ended, selectors.EVENT_READ)
        self._selector.register(self._channel, selectors.EVENT_READ)
        deadline = started + self._task.command.seconds
        while True:
            ready = {key.fileobj for key, _ in self._selector.select(_CHECK_EVERY)}
            if ended in ready:
                return system.reap(child.pid) or 0
            if self._channel in ready and self._told_to_kill():
                self._killed = True
                self._selector.unregister(self._channel)
                _kill(child, group)
            elif not self._timed_out and time.monotonic() > deadline:
                self._timed_out = True
                _kill(child, group)
            elif not self._disk_full and watch.is_full():
                self._disk_full = True
                _kill(child, group)

    def _told_to_kill(self) -> bool:
        try:
            return any(message.get("ask") == "kill" for message, _ in self._channel.receive())
        except wire.PeerGone:
            return True


class DiskWatch:
    """Whether some folders have grown by more than a limit, found out without walking them all the time.

    A folder cannot have grown by more than its file system has, so the walk is
    made only when the file system grew by half of the limit, or now and then
    because others may have freed what the command took.
    """

    def __init__(self, folders: list[Path], limit: int) -> None:
        self._folders = folders
        self._limit = limit
        self._used_before = self._file_systems()
        self._before = size_of(*folders)
        self._next_walk = time.monotonic() + _WALK_EVERY

    def is_full(self) -> bool:
        if not self._folders:
            return False
        suspicious = self._file_systems() - self._used_before > self._limit // 2
        now = time.monotonic()
        if now < self._next_walk and not (suspicious and now >= self._next_walk - _WALK_EVERY + _CHECK_EVERY):
            return False
        full = self.exceeds(size_of(*self._folders))
        took = time.monotonic() - now
        self._next_walk = now + max(_WALK_EVERY, took * _WALK_SHARE)
        if suspicious:
            self._next_walk = now + _WALK_EVERY + took * _WALK_SHARE
        return full

    def exceeds(self, size: int) -> bool:
        """Whether the folders, which now have `size` bytes, have grown by too much."""
        return size - self._before > self._limit

    def _file_systems(self) -> int:
        seen = {}
        for folder in self._folders:
            numbers = os.statvfs(folder)
            seen[numbers.f_fsid] = (numbers.f_blocks - numbers.f_bfree) * numbers.f_frsize
        return sum(seen.values())


def _rlimits(task: Task) -> dict[int, int]:
    return {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: task.command.disk}


def _kill(child: confinement.Child, group: cgroups.Group) -> None:
    group.kill()
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    for pid in group.processes():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
