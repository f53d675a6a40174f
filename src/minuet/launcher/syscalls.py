"""System calls that Python 3.11 does not offer: namespaces, mounts, prctl.

Called by the launcher and the processes it forks, before they drop root; kept
apart because this is the one place that talks to the C library directly.
"""

from __future__ import annotations

import ctypes
import os
import platform

from minuet import system

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Moves the calling process into fresh namespaces."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Moves the calling process into the namespace behind `fd`."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Shows `source` at `target`; the flags are those of the system call."""
    arguments = [value.encode() if value is not None else None for value in (source, target, kind)]
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() if data else None), f"mount {target}")


def syscall(number: int, *arguments: object) -> int:
    """A raw system call, for those without a wrapper in the C library."""
    return _check(_libc.syscall(number, *arguments), f"syscall {number}")


def prctl(option: int, value: int) -> None:
    """Sets a property of the calling process; other systems than Linux have none of these, which the probe tells."""
    if not system.IS_LINUX:
        return
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def no_new_privileges() -> None:
    """No program started from here on can gain privileges by its file's bits."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def not_traceable() -> None:
    """Keeps other processes of the same uid from reading this one's memory."""
    prctl(_PR_SET_DUMPABLE, 0)


def traceable() -> None:
    """Undoes `not_traceable`, for a child that is about to execute something else."""
    prctl(_PR_SET_DUMPABLE, 1)


def adopt_orphans() -> None:
    """Makes descendants whose parents died children of the calling process."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signal_number: int) -> None:
    """Asks for `signal_number` when the thread that forked this process ends."""
    prctl(_PR_SET_PDEATHSIG, signal_number)


def install_filter(program: bytes) -> None:
    """Installs a seccomp filter on the calling process for good."""

    class _Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    no_new_privileges()
    loaded = _Program(len(program) // 8, program)
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0), "seccomp")


def machine() -> str:
    """The architecture's name as uname gives it."""
    return platform.machine()
