"""The system calls a sandbox may not make, as a BPF program without any library.

`program()` is handed to bubblewrap (`--seccomp FD`) or installed directly by
the Landlock class. The list denies what changes namespaces, mounts, kernel
modules, clocks and other processes; everything an application server needs
stays. clone3 is answered with ENOSYS, because its flags lie behind a pointer
that a filter cannot read, and the C library then falls back to clone.
"""

from __future__ import annotations

import struct

from minuet import system
from minuet.launcher import syscalls

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = 1, 38
_NUMBER_AT, _ARCH_AT, _FIRST_ARGUMENT_AT, _SECOND_ARGUMENT_AT = 0, 4, 16, 24
_NEW_NAMESPACE_FLAGS = 0x7E020080
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_X32 = 0x40000000
_CLONE3 = 435
_IO_URING = (425, 426, 427)

_SHARED = (428, 429, 430, 431, 432, 433, 438, 442, 443)
"""open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, pidfd_getfd, mount_setattr, quotactl_fd."""

# One row for each call: ptrace mount umount2 pivot_root chroot swapon swapoff reboot init_module delete_module
# finit_module kexec_load kexec_file_load bpf perf_event_open userfaultfd keyctl add_key request_key unshare setns
# name_to_handle_at open_by_handle_at process_vm_readv process_vm_writev acct settimeofday clock_settime
# clock_adjtime adjtimex quotactl move_pages mbind migrate_pages syslog personality kcmp lookup_dcookie nfsservctl
# vhangup, and on x86_64 also iopl ioperm sysfs uselib modify_ldt.
_DENIED: dict[str, tuple[int, ...]] = {
    "x86_64": (
        *(101, 165, 166, 155, 161, 167, 168, 169, 175, 176, 313, 246, 320, 321, 298, 323, 250, 248, 249, 272, 308),
        *(303, 304, 310, 311, 163, 164, 227, 305, 159, 179, 279, 237, 256, 103, 135, 312, 212, 180, 153),
        *(172, 173, 139, 134, 154),
    ),
    "aarch64": (
        *(117, 40, 39, 41, 51, 224, 225, 142, 105, 106, 273, 104, 294, 280, 241, 282, 219, 217, 218, 97, 268),
        *(264, 265, 270, 271, 89, 170, 112, 266, 171, 60, 239, 235, 238, 116, 92, 272, 18, 42, 58),
    ),
}
_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_IOCTL = {"x86_64": 16, "aarch64": 29}


def _instruction(code: int, yes: int, no: int, value: int) -> bytes:
    return struct.pack("<HBBI", code, yes, no, value & 0xFFFFFFFF)


def _refuse(number: int, errno: int) -> bytes:
    return _instruction(_EQUAL, 0, 1, number) + _instruction(_RETURN, 0, 0, _ERRNO | errno)


def supported(machine: str | None = None) -> bool:
    """Whether the numbers for this architecture are known."""
    return system.IS_LINUX and (machine or syscalls.machine()) in _ARCH


def program(machine: str | None = None) -> bytes:
    """Returns the filter for an architecture; raises `KeyError` for an unknown one."""
    name = machine or syscalls.machine()
    parts = [
        _instruction(_LOAD, 0, 0, _ARCH_AT),
        _instruction(_EQUAL, 1, 0, _ARCH[name]),
        _instruction(_RETURN, 0, 0, _KILL),
        _instruction(_LOAD, 0, 0, _NUMBER_AT),
    ]
    if name == "x86_64":
        parts += [_instruction(_AT_LEAST, 0, 1, _X32), _instruction(_RETURN, 0, 0, _ERRNO | _EPERM)]
    parts += [_refuse(number, _EPERM) for number in (*_DENIED[name], *_SHARED)]
    parts += [_refuse(number, _ENOSYS) for number in (*_IO_URING, _CLONE3)]
    parts += [
        _instruction(_EQUAL, 0, 4, _CLONE[name]),
        _instruction(_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        _instruction(_ANY_BIT, 0, 1, _NEW_NAMESPACE_FLAGS),
        _instruction(_RETURN, 0, 0, _ERRNO | _EPERM),
        _instruction(_LOAD, 0, 0, _NUMBER_AT),
        _instruction(_EQUAL, 0, 4, _IOCTL[name]),
        _instruction(_LOAD, 0, 0, _SECOND_ARGUMENT_AT),
        _instruction(_EQUAL, 1, 0, _TIOCSTI),
        _instruction(_EQUAL, 0, 1, _TIOCLINUX),
        _instruction(_RETURN, 0, 0, _ERRNO | _EPERM),
        _instruction(_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(parts)
