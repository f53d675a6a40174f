"""One small process for each instance: owns its log, its restarts and its sandbox.

Forked by the launcher (`birth.py`), it has dropped to the workload's uid for
good when `Shim.run` begins, and outlives launcher and agent. It is asked over
a Unix socket in the instance's folder, by the agent or root only; the protocol
is `VERSION`ed because a shim keeps its code until its application is replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minuet import system
from minuet.kernel.retry import Backoff, next_attempt
from minuet.launcher import confinement, processes, sandbox, wire
from minuet.launcher.cgroups import Group
from minuet.launcher.logfiles import Lines, LogFolder

VERSION = 1
STEADY_SECONDS = 5.0
"""An application that lived this long is started again as if it had never failed."""

STATE_FILE = "state.json"
SOCKET_FILE = "s"
_READ = 256 * 1024
_READS_AT_ONCE = 8
_WATCHERS = 8
_PIPE_BYTES = 1024 * 1024
_F_SETPIPE_SZ = 1031
_LISTEN_STATE = "0A"


@dataclass(slots=True)
class State:
    """What everybody may know of an instance; also kept in its folder, replaced by rename."""

    id: str
    key: str
    template: str
    generation: int
    address: str
    isolation: str
    phase: str = "starting"
    restarts: int = 0
    started_at: float | None = None
    exited_at: float | None = None
    exit_code: int | None = None
    out_of_memory: bool = False
    set_up: bool = True
    retry_at: float | None = None
    sequence: int = 0
    version: int = VERSION
    shim: dict[str, Any] = field(default_factory=dict)
    application: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Home:
    """What birth prepared while it was root."""

    folder_fd: int
    listener: socket.socket
    log: LogFolder
    group: Group
    plan: sandbox.Plan
    rlimits: dict[int, int]
    friends: frozenset[int]
    """The uids that may ask: root and the agent."""

    stop_grace: float
    own_network: bool


class Shim:
    """The loop. All state is here; every handler is short and none blocks."""

    def __init__(self, state: State, home: Home) -> None:
        self.state = state
        self._home = home
        self._selector = selectors.DefaultSelector()
        self._child: confinement.Child | None = None
        self._child_watch: system.Watch | None = None
        self._kills_before = 0
        self._started = 0.0
        self._attempt = 0
        self._start_at: float | None = 0.0
        self._stopping = False
        self._kill_at: float | None = None
        self._pipes: dict[int, tuple[str, Lines]] = {}
        self._channels: set[wire.Channel] = set()
        self._watchers: set[wire.Channel] = set()
        self._waker = -1

    def run(self) -> None:
        """Returns when the application has been stopped on request."""
        self._listen_to_signals()
        self._home.listener.setblocking(False)
        self._selector.register(self._home.listener, selectors.EVENT_READ, self._accept)
        while not (self._stopping and self._child is None):
            self._on_time()
            for key, _ in self._selector.select(self._until_next()):
                # An earlier handler of this round may have closed what this one is about.
                present = self._selector.get_map().get(key.fd)
                if present is not None and present.data is key.data:
                    key.data()
        self._drain_pipes()
        self.state.phase = "stopped"
        self._announce()

    # time

    def _until_next(self) -> float | None:
        moments = [moment for moment in (self._start_at, self._kill_at) if moment is not None]
        waiting_for_pid = self._child is not None and self.state.application is None
        if waiting_for_pid:
            moments.append(time.monotonic() + 0.005)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _on_time(self) -> None:
        now = time.monotonic()
        if self._start_at is not None and now >= self._start_at and not self._stopping:
            self._start_at = None
            self._start()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._kill_all()
        if self._child is not None and self.state.application is None:
            self._learn_application()

    # the application

    def _start(self) -> None:
        pipes = {name: system.pipe() for name in ("stdout", "stderr")}
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._kills_before = self._home.group.out_of_memory_kills()
        streams = confinement.Streams(nothing, pipes["stdout"][1], pipes["stderr"][1])
        self._child = confinement.start(
            self._home.plan, self.state.isolation, self._home.group, streams, self._home.rlimits
        )
        self._started = time.monotonic()
        self._child_watch = system.watch(self._child.pid)
        self._selector.register(self._child_watch, selectors.EVENT_READ, self._exited)
        for name, (reader, writer) in pipes.items():
            os.close(writer)
            self._own_pipe(name, reader)
        os.close(nothing)
        self.state.started_at, self.state.retry_at = time.time(), None
        self.state.phase, self.state.application = "starting", None
        self._learn_application()

    def _own_pipe(self, name: str, reader: int) -> None:
        os.set_blocking(reader, False)
        with contextlib.suppress(OSError):
            import fcntl

            fcntl.fcntl(reader, _F_SETPIPE_SZ, _PIPE_BYTES)
        self._pipes[reader] = (name, Lines())
        self._selector.register(reader, selectors.EVENT_READ, lambda: self._read_pipe(reader))

    def _learn_application(self) -> None:
        """The sandbox's first process is known a few milliseconds after the fork."""
        child = self._child
        if child is None:
            return
        inner = child.inner() if child.status_fd is not None else child.pid
        mark = processes.mark_of(inner) if inner else None
        if mark is None:
            return
        self.state.application = asdict(mark)
        self.state.phase = "stopping" if self._stopping else "running"
        self._announce()

    def _exited(self) -> None:
        child = self._child
        if child is None or self._child_watch is None:
            return
        # First, while the number of the process and of its group cannot be anybody else's.
        self._kill_all()
        status = system.reap(child.pid) or 0
        self._selector.unregister(self._child_watch)
        self._child_watch.close()
        self.state.exit_code = _exit_code(status)
        self.state.set_up = child.was_set_up()
        self.state.out_of_memory = self._home.group.out_of_memory_kills() > self._kills_before
        self.state.exited_at = time.time()
        child.close()
        self._child, self._kill_at = None, None
        _reap_orphans()
        self.state.application = None
        self._drain_pipes()
        if not self._stopping:
            self._plan_restart()

    def _plan_restart(self) -> None:
        self._attempt = next_attempt(self._attempt, time.monotonic() - self._started, STEADY_SECONDS)
        delay = Backoff().delay(self._attempt)
        self._start_at = time.monotonic() + delay
        self.state.restarts += 1
        self.state.phase = "backoff"
        self.state.retry_at = time.time() + delay
        self._announce()

    def _stop(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        if self._stopping:
            self._kill_at = min(self._kill_at or deadline, deadline)
            return
        self._stopping, self._start_at = True, None
        self.state.phase = "stopping"
        if self._child is not None:
            self._kill_at = deadline
            self._signal_application(signal.SIGTERM)
        self._announce()

    def _signal_application(self, number: signal.Signals) -> None:
        """Tells the application's process group, so that a shell in front of it does not swallow the signal."""
        application = self.state.application
        if application is None:
            self._kill_at = time.monotonic()
            return
        first = application["pid"]
        members = processes.children_of(first) if self._child and self._child.status_fd is not None else (first,)
        groups = set()
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                groups.add(os.getpgid(pid))
        for group in groups - {os.getpgrp()}:
            processes.kill_group(group, number)

    def _kill_all(self) -> None:
        self._home.group.kill()
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child.pid, signal.SIGKILL)
            processes.kill_group(self._child.pid, signal.SIGKILL)
        for pid in processes.children_of(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    # its output

    def _read_pipe(self, reader: int) -> None:
        name, lines = self._pipes[reader]
        for _ in range(_READS_AT_ONCE):
            try:
                data = os.read(reader, _READ)
            except BlockingIOError:
                return
            if not data:
                self._home.log.write(name, lines.end())
                self._selector.unregister(reader)
                os.close(reader)
                del self._pipes[reader]
                return
            self._home.log.write(name, lines.feed(data))

    def _drain_pipes(self) -> None:
        for reader in list(self._pipes):
            self._read_pipe(reader)

    # whoever asks

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._home.listener.accept()
            channel = wire.Channel(connection, outgoing_limit=_READ)
            if channel.peer_uid() not in self._home.friends or len(self._channels) >= _WATCHERS:
                channel.close()
                return
            self._channels.add(channel)
            self._selector.register(channel, selectors.EVENT_READ, lambda: self._serve(channel))

    def _serve(self, channel: wire.Channel) -> None:
        try:
            for message, fds in channel.receive():
                for fd in fds:
                    os.close(fd)
                channel.send(self._answer(channel, message))
            self._send_rest(channel)
        except (wire.PeerGone, ValueError, TypeError):
            self._forget(channel)

    def _send_rest(self, channel: wire.Channel) -> None:
        """What the peer has not read yet goes out when it reads on."""
        events = selectors.EVENT_READ if channel.flush() else selectors.EVENT_READ | selectors.EVENT_WRITE
        key = self._selector.get_key(channel)
        if key.events != events:
            self._selector.modify(channel, events, key.data)

    def _answer(self, channel: wire.Channel, message: wire.Message) -> wire.Message:
        match message.get("ask"):
            case "status":
                pass
            case "watch":
                self._watchers.add(channel)
            case "stop":
                self._stop(float(message.get("grace", self._home.stop_grace)))
            case "listening":
                return {"version": VERSION, "listening": self._listening()}
            case "tail":
                return {"version": VERSION, "tail": list(self._home.log.tail)}
            case other:
                return {"version": VERSION, "error": f"this shim does not know {other!r}"}
        return self._told()

    def _told(self) -> wire.Message:
        return {"version": VERSION, "state": asdict(self.state), "tail": list(self._home.log.tail)}

    def _forget(self, channel: wire.Channel) -> None:
        if channel not in self._channels:
            return
        self._selector.unregister(channel)
        channel.close()
        self._channels.discard(channel)
        self._watchers.discard(channel)

    def _announce(self) -> None:
        self.state.sequence += 1
        self.save()
        told = self._told()
        for channel in list(self._watchers):
            try:
                channel.send(told)
                self._send_rest(channel)
            except wire.PeerGone:
                self._forget(channel)

    def save(self) -> None:
        """Replaces the state file; a full disk must not stop the application."""
        fresh = f".{STATE_FILE}"
        with contextlib.suppress(OSError):
            fd = os.open(
                fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640, dir_fd=self._home.folder_fd
            )
            try:
                os.write(fd, json.dumps(asdict(self.state)).encode())
            finally:
                os.close(fd)
            os.rename(fresh, STATE_FILE, src_dir_fd=self._home.folder_fd, dst_dir_fd=self._home.folder_fd)

    def _listening(self) -> list[list[Any]] | None:
        """Every TCP socket the application listens on: address and port; None where the system does not tell."""
        if not Path("/proc/self/net/tcp").exists():
            return None
        own = None if self._home.own_network else _sockets_below(os.getpid())
        return [list(pair) for pair in sorted(listening_sockets(own))]

    # signals

    def _listen_to_signals(self) -> None:
        reader, self._waker = system.pipe(blocking=False)
        for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        self._selector.register(reader, selectors.EVENT_READ, lambda: self._on_signal(reader))

    def _on_signal(self, reader: int) -> None:
        with contextlib.suppress(BlockingIOError):
            numbers = os.read(reader, 512)
            if self._child is None:
                _reap_orphans()
            if signal.SIGTERM in numbers:
                self._stop(self._home.stop_grace)


def _reap_orphans() -> None:
    """Collects what became the shim's child when its parent in the sandbox died; nothing else is a child now."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _exit_code(status: int) -> int:
    """The code of a shell: 128 and the signal for one that killed it; bubblewrap answers so too."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def listening_sockets(inodes: set[int] | None = None) -> set[tuple[str, int]]:
    """Address and port of each listening TCP socket of this network namespace, or of those `inodes`."""
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/self/net/{name}").read_text(encoding="ascii").splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTEN_STATE and (inodes is None or int(words[9]) in inodes):
                    address, _, port = words[1].partition(":")
                    found.add((_address(family, address), int(port, 16)))
    return found


def _address(family: int, text: str) -> str:
    """The kernel prints addresses as 32-bit words in the machine's byte order."""
    raw = b"".join(bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    return socket.inet_ntop(family, raw)


def _sockets_below(pid: int) -> set[int]:
    """The socket inodes held by all descendants of a process; for classes that share the machine's network."""
    inodes: set[int] = set()
    for child in processes.children_of(pid):
        inodes |= _sockets_below(child)
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{child}/fd"):
                with contextlib.suppress(OSError):
                    target = str(Path(entry.path).readlink())
                    if target.startswith("socket:["):
                        inodes.add(int(target[8:-1]))
    return inodes
