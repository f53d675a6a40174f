"""Turns a freshly forked child into a sandboxed program, in one of the classes of isolation.

Shims and runners, which already have the tenant's identity, call `start`.
Separate from `sandbox.py`, which decides and does nothing, and from the shim,
which does not care how its child is held.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
from dataclasses import dataclass, field
from typing import NoReturn

from minuet import system
from minuet.launcher import landlock, sandbox, seccomp, syscalls
from minuet.launcher.cgroups import Group
from minuet.launcher.isolation import LANDLOCK, has_own_files

_ARGUMENTS_FD_LIMIT = 8 * 1024 * 1024
_DEFAULT_SIGNALS = tuple(number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP))
_STATUS_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Streams:
    """What the program gets as standard input, output and error."""

    stdin: int
    stdout: int
    stderr: int


@dataclass(slots=True)
class Child:
    """A started program: the process to wait for, and what bubblewrap tells about it."""

    pid: int
    status_fd: int | None = None
    _said: bytes = field(default=b"")

    def inner(self) -> int | None:
        """The pid of the sandbox's first process as this machine sees it, once known."""
        self._read()
        for document in self._documents():
            if "child-pid" in document:
                return document["child-pid"]
        return None

    def was_set_up(self) -> bool:
        """Whether the program itself ever ran; asked after its end."""
        self._read()
        return self.status_fd is None or any("exit-code" in document for document in self._documents())

    def close(self) -> None:
        if self.status_fd is not None:
            self._read()
            os.close(self.status_fd)
            self.status_fd = None

    def _read(self) -> None:
        while self.status_fd is not None and len(self._said) < _STATUS_BYTES:
            try:
                chunk = os.read(self.status_fd, _STATUS_BYTES)
            except BlockingIOError:
                return
            if not chunk:
                return
            self._said += chunk

    def _documents(self) -> list[dict[str, int]]:
        whole = self._said.decode().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.strip().startswith("{")]


def start(plan: sandbox.Plan, isolation: str, group: Group, streams: Streams, rlimits: dict[int, int]) -> Child:
    """Forks, confines, executes. The caller keeps its thread: the child dies with it."""
    reader = writer = -1
    if has_own_files(isolation):
        reader, writer = system.pipe()
        os.set_blocking(reader, False)
    pid = os.fork()
    if pid == 0:
        _become(plan, isolation, group, streams, rlimits, writer)
    if not has_own_files(isolation):
        return Child(pid)
    os.close(writer)
    return Child(pid, reader)


def _become(
    plan: sandbox.Plan, isolation: str, group: Group, streams: Streams, rlimits: dict[int, int], status_fd: int
) -> NoReturn:
    """Never returns: the child either executes its program or ends with 127 and a line on its stderr."""
    try:
        # A process that may not be traced cannot open its own files below /proc/self either.
        syscalls.traceable()
        group.enter()
        for kind, value in rlimits.items():
            resource.setrlimit(kind, (value, value))
        _raise_kill_score()
        for number in _DEFAULT_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (streams.stdin, streams.stdout, streams.stderr)]
        for target, fd in enumerate(high):
            os.dup2(fd, target, inheritable=True)
        if has_own_files(isolation):
            _bubblewrap(plan, status_fd)
        _directly(plan, isolation)
    except BaseException as error:  # noqa: BLE001 - a forked child must end here, whatever happened
        os.write(2, f"minuet: cannot start: {error}\n".encode())
    os._exit(127)


def _bubblewrap(plan: sandbox.Plan, status_fd: int) -> NoReturn:
    put = {
        target: _memory_file(content) for target, content in (sandbox.system_files(plan.host_name) | plan.files).items()
    }
    filter_fd = _memory_file(seccomp.program()) if seccomp.supported() else None
    os.set_inheritable(status_fd, True)
    words = sandbox.options(plan, put, filter_fd, status_fd)
    arguments = _memory_file(b"".join(word.encode() + b"\0" for word in words))
    os.execve(sandbox.BWRAP, ["bwrap", "--args", str(arguments), "--", *plan.argv], {})  # noqa: S606 - no shell is wanted


def _directly(plan: sandbox.Plan, isolation: str) -> NoReturn:
    """The classes without namespaces: a session of its own, rules on paths, a filter of calls."""
    os.setsid()
    syscalls.die_with_parent(signal.SIGKILL)
    syscalls.no_new_privileges()
    cwd = landlock.place(plan, plan.cwd)
    os.chdir(cwd)
    if isolation == LANDLOCK:
        landlock.restrict(plan)
        if seccomp.supported():
            syscalls.install_filter(seccomp.program())
    os.execvpe(plan.argv[0], list(plan.argv), plan.environment)  # noqa: S606 - no shell is wanted


def _memory_file(content: bytes) -> int:
    fd = os.memfd_create("minuet", 0)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _raise_kill_score() -> None:
    """Under memory pressure of the whole machine Linux takes an application before a shim."""
    if not system.IS_LINUX:
        return
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"500")
    finally:
        os.close(fd)
