"""Limits and accounting for one sandbox, whichever generation of control groups the kernel has.

The launcher makes a `Group` for each sandbox and hands it to the forked shim
or runner, which moves its child into it before the child executes anything.
`delegate` lets that process do so after it has dropped root.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_ROOT = Path("/sys/fs/cgroup")
_CPU_PERIOD = 100_000
"""Microseconds; the kernel's default period of the CPU controller."""


@dataclass(frozen=True, slots=True)
class Limits:
    """CPU in cores, memory in bytes, processes and threads together; None is unlimited."""

    cpu: float | None = None
    memory: int | None = None
    processes: int | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The folders of one sandbox, one for each hierarchy that has one for it."""

    memory: Path | None = None
    cpu: Path | None = None
    pids: Path | None = None
    unified: Path | None = None
    shim: Path | None = None
    """Where the shim itself lives; only version 2 needs it there to move its child."""

    @property
    def folders(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(path for path in (self.memory, self.cpu, self.pids, self.unified) if path))

    def enter(self) -> None:
        """Moves the calling process in."""
        for folder in self.folders:
            _write(folder / "cgroup.procs", "0")

    def shelter(self) -> None:
        """Moves the calling shim beside its application, from where it may move children across."""
        if self.shim:
            _write(self.shim / "cgroup.procs", "0")

    def out_of_memory_kills(self) -> int:
        """How many processes of the group the kernel has killed for want of memory."""
        for name in ("memory.oom_control", "memory.events"):
            if self.memory and (count := _field(self.memory / name, "oom_kill")) is not None:
                return count
        return 0

    def peak_memory(self) -> int:
        """The most bytes the group ever held; 0 when the kernel does not say."""
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            if self.memory:
                with contextlib.suppress(OSError, ValueError):
                    return int((self.memory / name).read_text(encoding="ascii"))
        return 0

    def processes(self) -> tuple[int, ...]:
        """Every process in the group."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                return tuple(int(word) for word in (folder / "cgroup.procs").read_text(encoding="ascii").split())
        return ()

    def kill(self) -> bool:
        """Kills everything in the group at once; False where the kernel cannot."""
        if self.unified and (self.unified / "cgroup.kill").exists():
            with contextlib.suppress(OSError):
                _write(self.unified / "cgroup.kill", "1")
                return True
        return False


class Hierarchy(Protocol):
    """What the launcher asks of control groups."""

    name: str

    def make(self, sandbox: str, limits: Limits, uid: int | None) -> Group:
        """Makes the group of a sandbox and, with `uid`, lets that uid move its own processes in."""

    def find(self, sandbox: str) -> Group:
        """The group as it was made, after a restart of the launcher."""

    def remove(self, sandbox: str) -> None:
        """Removes an empty group; one that is gone already is fine."""

    def close(self) -> None:
        """Removes the installation's own folder."""


class V1Hybrid:
    """Version 1 controllers; freezing and killing by the version 2 mount, where there is one."""

    name = "v1"

    def __init__(self, installation: str, root: Path = _ROOT) -> None:
        self._root = root
        self._name = f"minuet-{installation}"

    def find(self, sandbox: str) -> Group:
        def folder(controller: str) -> Path | None:
            base = self._root / controller
            return base / self._name / sandbox if base.is_dir() else None

        pair = folder("unified")
        inner, shim = (pair / "application", pair / "shim") if pair else (None, None)
        return Group(folder("memory"), folder("cpu"), folder("pids"), inner, shim)

    def make(self, sandbox: str, limits: Limits, uid: int | None) -> Group:
        group = self.find(sandbox)
        for path in (*group.folders, group.shim):
            if path:
                path.mkdir(parents=True, exist_ok=True)
        if group.memory and limits.memory:
            # The plain limit may never exceed the one with swap, so a group made again starts from none.
            _write_if_there(group.memory / "memory.memsw.limit_in_bytes", "-1")
            _write(group.memory / "memory.limit_in_bytes", str(limits.memory))
            _write_if_there(group.memory / "memory.memsw.limit_in_bytes", str(limits.memory))
        if group.cpu and limits.cpu:
            _write(group.cpu / "cpu.cfs_period_us", str(_CPU_PERIOD))
            _write(group.cpu / "cpu.cfs_quota_us", str(max(1000, int(limits.cpu * _CPU_PERIOD))))
        if group.pids and limits.processes:
            _write(group.pids / "pids.max", str(limits.processes))
        if uid is not None:
            _delegate([path / "cgroup.procs" for path in group.folders], uid)
            if group.unified:
                _delegate([group.unified.parent / "cgroup.procs", group.unified / "cgroup.kill"], uid)
        return group

    def remove(self, sandbox: str) -> None:
        group = self.find(sandbox)
        for path in (*group.folders, group.shim, group.unified.parent if group.unified else None):
            if path:
                _remove(path)

    def close(self) -> None:
        for controller in ("memory", "cpu", "pids", "unified"):
            _remove(self._root / controller / self._name)


class V2:
    """The unified hierarchy, in the part of it that this launcher was started in."""

    name = "v2"

    def __init__(self, installation: str, root: Path = _ROOT) -> None:
        own = Path("/proc/self/cgroup").read_text(encoding="ascii").rpartition("::/")[2].strip()
        self._base = root / own / f"minuet-{installation}"
        self._own = root / own

    def find(self, sandbox: str) -> Group:
        application = self._base / sandbox / "application"
        return Group(application, application, application, application, self._base / sandbox / "shim")

    def make(self, sandbox: str, limits: Limits, uid: int | None) -> Group:
        self._enable()
        group = self.find(sandbox)
        outer = self._base / sandbox
        outer.mkdir(parents=True, exist_ok=True)
        _write(outer / "cgroup.subtree_control", "+memory +cpu +pids")
        for path in (*group.folders, group.shim):
            if path:
                path.mkdir(exist_ok=True)
        application = group.folders[0]
        if limits.memory:
            _write(application / "memory.max", str(limits.memory))
            _write_if_there(application / "memory.swap.max", "0")
        if limits.cpu:
            _write(application / "cpu.max", f"{max(1000, int(limits.cpu * _CPU_PERIOD))} {_CPU_PERIOD}")
        if limits.processes:
            _write(application / "pids.max", str(limits.processes))
        if uid is not None:
            # Moving a process needs both ends and their common parent.
            _delegate([outer / "cgroup.procs", application / "cgroup.procs", application / "cgroup.kill"], uid)
        return group

    def _enable(self) -> None:
        if self._base.is_dir():
            return
        self._base.mkdir()
        try:
            _write(self._own / "cgroup.subtree_control", "+memory +cpu +pids")
        except OSError:
            # A group with processes cannot have controllers for its children: they move into a leaf first.
            leaf = self._own / "launcher"
            leaf.mkdir(exist_ok=True)
            for pid in (self._own / "cgroup.procs").read_text(encoding="ascii").split():
                _write(leaf / "cgroup.procs", pid)
            _write(self._own / "cgroup.subtree_control", "+memory +cpu +pids")
        _write(self._base / "cgroup.subtree_control", "+memory +cpu +pids")

    def remove(self, sandbox: str) -> None:
        group = self.find(sandbox)
        for path in (*group.folders, group.shim, self._base / sandbox):
            if path:
                _remove(path)

    def close(self) -> None:
        _remove(self._base)


class Null:
    """No control groups: rlimits are all there is."""

    name = "none"

    def make(self, sandbox: str, limits: Limits, uid: int | None) -> Group:  # noqa: ARG002 - the port's shape
        return Group()

    def find(self, sandbox: str) -> Group:  # noqa: ARG002 - the port's shape
        return Group()

    def remove(self, sandbox: str) -> None:
        """There is nothing to remove."""

    def close(self) -> None:
        """There is nothing to remove."""


def detect(installation: str, root: Path = _ROOT) -> Hierarchy:
    """Chooses by what is mounted and whether this process may write there."""
    if (root / "cgroup.controllers").exists() and os.access(root, os.W_OK):
        return V2(installation, root)
    if all(os.access(root / controller, os.W_OK) for controller in ("memory", "cpu", "pids")):
        return V1Hybrid(installation, root)
    return Null()


def _write(path: Path, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _write_if_there(path: Path, value: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        _write(path, value)


def _delegate(paths: list[Path], uid: int) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.chown(path, uid, -1)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()


def _field(path: Path, name: str) -> int | None:
    try:
        text = path.read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return None
