"""The fallback class: paths restricted by Landlock, the machine's network, no namespaces.

Used by `confinement.py` where bubblewrap or root is missing. It keeps an
application from reading and writing what is not its own; it does not hide
processes or ports, and the layers keep their paths on this machine.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from minuet import system
from minuet.launcher import syscalls
from minuet.launcher.sandbox import Plan

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL = 1, 2, 4, 8, 1 << 14, 1 << 15
_READ_ONLY = _EXECUTE | _READ_FILE | _READ_DIR
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE
_HANDLED = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}
_HANDLED_NEWEST = 0xFFFF
_NETWORK_SINCE, _SCOPES_SINCE, _TRUNCATE_SINCE, _IOCTL_SINCE = 4, 6, 3, 5
_SCOPES = 3
"""Abstract Unix sockets and signals stay inside the domain."""

_READABLE = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ssl", "/etc/ca-certificates", "/etc/alternatives")
_READABLE_FILES = (
    *("/etc/ld.so.cache", "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf"),
    *("/etc/localtime", "/proc"),
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def version() -> int:
    """The kernel's Landlock ABI; 0 when it has none."""
    if not system.IS_LINUX:
        return 0
    try:
        return syscalls.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def place(plan: Plan, target: str) -> str:
    """Where a path of the sandbox really lies on this machine, in a class without mounts."""
    for mount in plan.mounts:
        if target == mount.target or target.startswith(mount.target.rstrip("/") + "/"):
            return mount.source + target[len(mount.target.rstrip("/")) :]
    return target


def restrict(plan: Plan) -> None:
    """Confines the calling process to the plan's mounts, the system's programs and its temporary folder."""
    abi = version()
    handled = _HANDLED.get(abi, _HANDLED_NEWEST)
    attributes = struct.pack("QQQ", handled, 0, _SCOPES if abi >= _SCOPES_SINCE else 0)
    size = 24 if abi >= _SCOPES_SINCE else 16 if abi >= _NETWORK_SINCE else 8
    ruleset = syscalls.syscall(_CREATE_RULESET, attributes, size, 0)
    on_files = _ON_FILES | (_TRUNCATE if abi >= _TRUNCATE_SINCE else 0) | (_IOCTL if abi >= _IOCTL_SINCE else 0)
    for path in (*_READABLE, *_READABLE_FILES, *(mount.source for mount in plan.mounts if not mount.writable)):
        _allow(ruleset, path, _READ_ONLY & handled, on_files)
    own = (plan.environment["TMPDIR"], *(mount.source for mount in plan.mounts if mount.writable), *_DEVICES)
    for path in own:
        _allow(ruleset, path, handled, on_files & handled)
    syscalls.no_new_privileges()
    syscalls.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int, on_files: int) -> None:
    if not Path(path).exists():
        return
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        wanted = rights if Path(path).is_dir() else rights & on_files
        syscalls.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", wanted, fd), 0)
    finally:
        os.close(fd)
