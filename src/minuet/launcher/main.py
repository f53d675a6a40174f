"""The launcher process: one socket for each role that may ask, one loop, one handler for each request.

Started by `minuet up` or a service manager with root where there is root. It
holds no secret: the plane's sealing key is read by each shim for itself. When
it is killed, everything it started goes on, and the next one takes it up again.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import assert_never

from minuet.kernel.errors import Conflict, Forbidden, Invalid, MinuetError
from minuet.launcher import cgroups, identities, namespaces, network, probe, requests, runner, storage, wire
from minuet.launcher.instances import Grounds, Instances
from minuet.launcher.loop import Callback, Loop
from minuet.launcher.roles import Roles
from minuet.launcher.settings import Layout, Settings, load, write_whole

_SOCKET_ROLES = {"supervisor": None, "agent": "agent", "builder": "builder"}
_BACKLOG = 64
_MAX_CONNECTIONS = 128
_RUNNERS = 16


def main(settings_file: Path) -> int:
    """Returns 0 after a shutdown, 1 with a line on stderr for what stood in the way of starting."""
    try:
        serve(settings_file)
    except MinuetError as error:
        sys.stderr.write(f"launcher: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return 1
    return 0


def serve(settings_file: Path) -> None:
    """Runs until it is told to shut down; raises `MinuetError` when it cannot start."""
    settings = load(settings_file)
    root = os.geteuid() == 0
    given = Path(settings.data)
    data = given if given.is_absolute() else (settings_file.resolve().parent / given).resolve()
    os.umask(0o022)
    data, program = namespaces.enter(data, root=root)
    layout = Layout(data)
    registry = identities.Identities(layout.identities, settings.uid_base, settings.identities, root)
    storage.prepare(layout, registry)
    registry.load()
    _only_one(layout)
    launcher = Launcher(settings, layout, registry, program)
    launcher.open()
    gc.collect()
    gc.freeze()
    launcher.run()


def _only_one(layout: Layout) -> None:
    """Holds a lock for as long as this process lives; forked children do not keep it, they close it."""
    import fcntl

    fd = os.open(layout.private / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise Conflict("a launcher runs on this data directory already", code="AlreadyRunning") from error


class Launcher:
    """Everything the process holds; `open` does what can fail, `run` serves."""

    def __init__(
        self, settings: Settings, layout: Layout, registry: identities.Identities, program: namespaces.Program
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._identities = registry
        self._program = program
        self._loop = Loop()
        self._connections: set[wire.Channel] = set()
        self._runners: dict[int, str] = {}
        self._count = 0
        self._stopping = False

    def open(self) -> None:
        """Probes, claims the network, takes up what an earlier launcher left, opens the sockets."""
        record = storage.installation(self._layout)
        self._hierarchy = cgroups.detect(record["tag"])
        self._finding = probe.probe(self._settings.isolation, self._hierarchy)
        self._hub = self._open_network(record) if self._finding.isolation == "sandbox" else None
        write_whole(self._layout.installation, json.dumps(record).encode())
        storage.sealing_key(self._layout)
        grounds = Grounds(
            self._settings, self._layout, self._identities, self._hierarchy, self._hub, self._finding.isolation
        )
        self._instances = Instances(self._loop, grounds)
        self._roles = Roles(self._loop, self._layout, self._settings, self._identities, self._program)
        self._listen_to_signals()
        self._instances.adopt()
        self._roles.adopt()
        for role, owner in _SOCKET_ROLES.items():
            self._open_socket(role, owner)

    def run(self) -> None:
        self._loop.run(_guard)

    def _open_network(self, record: dict[str, str]) -> network.Hub:
        tag = record["tag"]
        if "pool" in record and (not self._settings.address_pool or record["pool"] == self._settings.address_pool):
            hub = network.Hub(tag, record["pool"])
            network.reopen_hub(hub)
            return hub
        hub = network.open_hub(tag, network.candidates(self._settings.address_pool))
        record["pool"] = hub.pool
        return hub

    # connections

    def _open_socket(self, role: str, owner: str | None) -> None:
        path = self._layout.sockets / f"{role}.sock"
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        before = os.umask(0o177)
        listener.bind(str(path))
        os.umask(before)
        identity = self._identities.of_role(owner) if owner else None
        uid = identity.uid if identity else os.getuid()
        if os.geteuid() == 0:
            os.chown(path, uid, identity.gid if identity else os.getgid())
        listener.listen(_BACKLOG)
        self._loop.on_readable(listener, functools.partial(self._accept, listener, role, uid))

    def _accept(self, listener: socket.socket, role: str, uid: int) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = listener.accept()
            channel = wire.Channel(connection)
            if channel.peer_uid() not in (uid, os.getuid(), 0) or len(self._connections) >= _MAX_CONNECTIONS:
                channel.close()
                return
            self._connections.add(channel)
            self._loop.on_readable(channel, functools.partial(self._arrived, channel, role))

    def _arrived(self, channel: wire.Channel, role: str) -> None:
        try:
            documents = channel.receive()
        except wire.PeerGone:
            self._drop(channel)
            return
        for message, fds in documents:
            self._answer(channel, role, message, fds)

    def _answer(self, channel: wire.Channel, role: str, message: wire.Message, fds: list[int]) -> None:
        def reply(answer: wire.Message) -> None:
            with contextlib.suppress(wire.PeerGone, OSError):
                channel.send(answer)

        try:
            self._handle(requests.decode(role, message), channel, fds, reply)
        except MinuetError as error:
            reply({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
        finally:
            for fd in fds:
                os.close(fd)

    def _drop(self, channel: wire.Channel) -> None:
        self._loop.forget(channel)
        self._connections.discard(channel)
        channel.close()

    # requests

    def _handle(  # noqa: C901, PLR0912 - one case for each request, and the type checker sees that none is missing
        self, request: requests.Request, channel: wire.Channel, fds: list[int], reply: Callable[[wire.Message], None]
    ) -> None:
        match request:
            case requests.StartInstance():
                self._instances.start(request, reply)
            case requests.StopInstance():
                self._instances.stop(request, reply)
            case requests.RemoveInstance():
                self._instances.remove(request, reply)
            case requests.ForgetWorkload():
                self._instances.forget_workload(request, reply)
            case requests.ListInstances():
                self._instances.listing(reply)
            case requests.Unpack():
                self._unpack(request.digest, fds, reply)
            case requests.RemoveLayer():
                self._remove_layer(request.digest, reply)
            case requests.ListLayers():
                names = [path.name for path in self._layout.layers.iterdir() if not path.name.startswith(".")]
                reply({"layers": [f"sha256:{name}" for name in names]})
            case requests.Isolation():
                reply(asdict(self._finding))
            case requests.StartRole():
                self._roles.start(request.role, reply)
            case requests.StopRole():
                self._roles.stop(request, reply)
            case requests.ListRoles():
                self._roles.listing(request, reply)
            case requests.Shutdown():
                self._shutdown(request.grace, reply)
            case requests.MakeWorkspace():
                reply(self._make_workspace(request.organization))
            case requests.RemoveWorkspace():
                self._remove_workspace(request.path, reply)
            case requests.SandboxCommand():
                self._run_command(request, channel, fds)
            case _:
                assert_never(request)

    def _unpack(self, digest: str, fds: list[int], reply: Callable[[wire.Message], None]) -> None:
        if len(fds) != 1:
            raise Invalid("one descriptor of a tar must come along", code="BadRequest")
        name = digest.removeprefix("sha256:")
        target = self._layout.layers / name
        if target.is_dir():
            reply({"path": str(target)})
            return
        self._count += 1
        staging = self._layout.layers / f".{name[:16]}-{os.getpid()}-{self._count}"
        identity = self._identities.of_role("unpack")
        staging.mkdir(mode=0o750)
        if os.geteuid() == 0:
            os.chown(staging, identity.uid, identity.gid)
        limits = (self._settings.unpacked_bytes, self._settings.unpacked_entries)
        tar = os.dup(fds[0])

        def finish(answer: wire.Message) -> None:
            if "error" in answer:
                self._loop.in_child(lambda: _remove(staging), lambda _: reply(answer))
                return
            if target.is_dir():
                self._loop.in_child(lambda: _remove(staging), lambda _: None)
            else:
                staging.rename(target)
            reply({"path": str(target), **answer})

        def unpack() -> wire.Message:
            # Loaded in the child only: the shims would carry it along.
            from minuet.launcher import unpacking

            return dict(unpacking.unpack_in(staging, tar, digest, identity, limits))

        self._loop.in_child(unpack, finish)
        os.close(tar)

    def _remove_layer(self, digest: str, reply: Callable[[wire.Message], None]) -> None:
        name = digest.removeprefix("sha256:")
        if self._instances.uses_layer(name):
            raise Conflict(f"layer {name[:12]} is in use", code="LayerInUse")
        path, doomed = self._layout.layers / name, self._layout.layers / f".removed-{name[:16]}"
        if path.is_dir():
            path.rename(doomed)
        self._loop.in_child(lambda: _remove(doomed), reply)

    def _make_workspace(self, organization: str) -> wire.Message:
        identity = self._identities.of_build(organization)
        self._count += 1
        path = self._layout.workspaces / f"{os.getpid()}-{self._count}-{os.urandom(4).hex()}"
        path.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(path, identity.uid, self._identities.of_role("builder").gid)
        path.chmod(0o2770)
        return {"path": str(path)}

    def _remove_workspace(self, given: str, reply: Callable[[wire.Message], None]) -> None:
        path = Path(given)
        if path.parent != self._layout.workspaces:
            raise Forbidden(f"{given} is no workspace", code="NotAllowed")
        self._loop.in_child(lambda: _remove(path), reply)

    def _run_command(self, command: requests.SandboxCommand, channel: wire.Channel, fds: list[int]) -> None:
        if len(fds) != len(command.streams):
            raise Invalid("every stream needs a descriptor", code="BadRequest")
        if len(self._runners) >= _RUNNERS:
            raise Conflict(f"{_RUNNERS} commands run already", code="TooManyCommands", hint="try again later")
        self._check_mounts(command)
        kind, _, organization = command.identity.partition(":")
        identity = self._identities.of_role("git") if kind == "git" else self._identities.of_build(organization)
        self._count += 1
        name = f"run-{os.getpid()}-{self._count}"
        scratch = self._layout.workspaces
        task = runner.Task(name, command, identity, self._finding.isolation, self._hierarchy, scratch)
        pid = os.fork()
        if pid == 0:
            runner.become_runner(task, channel.connection, fds)
        self._runners[pid] = name
        self._loop.watch_process(pid, lambda _: self._runner_ended(pid))
        # The runner has a copy of the connection and speaks on it alone from here on.
        self._drop(channel)

    def _check_mounts(self, command: requests.SandboxCommand) -> None:
        """Of the platform's data a sandbox is shown the builder's own part, and only there may it write.

        What else it is shown is read-only, and only as far as its own uid may read it.
        """
        own, code = self._layout.data / "builder", ("venv", "src", "python")
        closed = (self._layout.data, namespaces.ROOM, Path("/proc"), Path("/sys"), Path("/dev"))
        installed = tuple(namespaces.ROOM / name for name in code)
        for mount in command.mounts:
            source = Path(mount.source)
            fine = source.is_relative_to(own) or (
                not mount.writable
                and (
                    any(source.is_relative_to(place) for place in installed)
                    or not any(source.is_relative_to(place) or place.is_relative_to(source) for place in closed)
                )
            )
            if not fine:
                raise Forbidden(f"{mount.source} may not be shown to a build", code="NotAllowed")

    def _runner_ended(self, pid: int) -> None:
        name = self._runners.pop(pid)
        self._hierarchy.find(name).kill()
        self._loop.after(0.05, lambda: self._hierarchy.remove(name))

    # the end

    def _shutdown(self, grace: float, reply: Callable[[wire.Message], None]) -> None:
        if self._stopping:
            raise Conflict("a shutdown is going on already", code="ShuttingDown")
        self._stopping = True
        waiting = {"roles", "instances"}

        def one_less(part: str) -> None:
            waiting.discard(part)
            if not waiting:
                self._close()
                reply({})
                self._loop.stop()

        for pid in self._runners:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._roles.close(grace, lambda: one_less("roles"))
        self._instances.close(grace, lambda: one_less("instances"))

    def _close(self) -> None:
        for name in (path.stem for path in self._layout.specs.glob("*.json")):
            self._hierarchy.remove(name)
        for name in self._runners.values():
            self._hierarchy.find(name).kill()
            self._hierarchy.remove(name)
        self._hierarchy.close()
        if self._hub:
            self._instances.disconnect()
            network.close_hub(self._hub)

    def _listen_to_signals(self) -> None:
        """SIGTERM ends the launcher alone: what it started goes on. Ctrl-C is the supervisor's business."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._loop.on_readable(reader, self._loop.stop)


def _guard(callback: Callback) -> None:
    """A bug in one request must not take the launcher from all others; it is written down."""
    try:
        callback()
    except Exception:  # noqa: BLE001 - see above
        sys.stderr.write(traceback.format_exc())


def _remove(path: Path) -> wire.Message:
    # The folders may be nested deeper than Python's own way of removing them goes.
    subprocess.run(("/bin/rm", "-rf", "--one-file-system", "--", str(path)), check=True)
    return {}
