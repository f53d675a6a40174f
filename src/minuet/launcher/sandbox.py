"""What a sandbox is made of: the arguments of bubblewrap, as a pure function of a `Plan`.

Shims and runners ask here. Two rules keep secrets out of process listings:
options travel NUL-separated through a file descriptor (`--args`), and
bubblewrap itself is started with an empty environment, because its first
process inside keeps the one it was given, readable at /proc/1/environ.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

BWRAP = "/usr/bin/bwrap"
SHELL = "/bin/sh"
INNER_ID = 10001
"""The uid and gid a process in a sandbox sees as its own."""

_BASE_FILES = ("/etc/ssl", "/etc/ca-certificates", "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf.d")
_LINKS = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
_NSSWITCH = "hosts: files dns\npasswd: files\ngroup: files\n"


@dataclass(frozen=True, slots=True)
class Mount:
    """A path of this machine that the sandbox sees at `target`."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a sandboxed command needs; values of `environment` and `files` may be secret."""

    argv: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    cwd: str
    mounts: tuple[Mount, ...]
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    tmp_bytes: int = 64 * 1024 * 1024
    host_name: str = "app"


def shell(command: str) -> tuple[str, ...]:
    """The argument list for a start command as a person wrote it.

    A stop signals the whole process group. A shell that waits for one of
    several commands would die of it at once and take the sandbox along, so
    there it is told to wait for its command to finish first. In front of a
    single command the shell gives way by itself.
    """
    compound = any(mark in command for mark in ";&|\n")
    return (SHELL, "-c", f"trap 'exit 143' TERM; {command}" if compound else command)


def base_environment(path: str) -> dict[str, str]:
    """What every sandbox has, whatever else is set."""
    return {"PATH": path, "HOME": "/tmp", "LANG": "C.UTF-8", "TMPDIR": "/tmp"}  # noqa: S108 - its private one


def system_files(host_name: str) -> dict[str, bytes]:
    """Generated files of /etc: programs look up their user, `localhost` and a resolver there."""
    resolver = next((path.read_bytes() for path in _RESOLVERS if path.exists()), b"")
    return {
        "/etc/passwd": f"app:x:{INNER_ID}:{INNER_ID}:app:/tmp:{SHELL}\n".encode(),
        "/etc/group": f"app:x:{INNER_ID}:\n".encode(),
        "/etc/hosts": f"127.0.0.1 localhost {host_name}\n::1 localhost\n".encode(),
        "/etc/resolv.conf": resolver,
        "/etc/nsswitch.conf": _NSSWITCH.encode(),
    }


def options(plan: Plan, put: dict[str, int], seccomp_fd: int | None, status_fd: int) -> list[str]:
    """The options for bubblewrap; `put` names the descriptor that holds each file's content."""
    words = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    words += ["--uid", str(INNER_ID), "--gid", str(INNER_ID), "--hostname", plan.host_name]
    words += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--disable-userns"]
    words += ["--json-status-fd", str(status_fd)]
    if seccomp_fd is not None:
        words += ["--seccomp", str(seccomp_fd)]
    words += _system()
    words += ["--proc", "/proc", "--dev", "/dev", "--size", str(plan.tmp_bytes), "--tmpfs", "/tmp"]  # noqa: S108
    words += _mounts(plan)
    for target, fd in put.items():
        words += ["--ro-bind-data", str(fd), target]
    words += ["--remount-ro", "/", "--chdir", plan.cwd, "--clearenv"]
    for name, value in plan.environment.items():
        words += ["--setenv", name, value]
    return words


def _system() -> list[str]:
    words = ["--ro-bind", "/usr", "/usr"]
    for name in _LINKS:
        path = Path("/") / name
        if path.is_symlink():
            words += ["--symlink", f"usr/{name}", str(path)]
        elif path.is_dir():
            words += ["--ro-bind", str(path), str(path)]
    for name in _BASE_FILES:
        words += ["--ro-bind-try", name, name]
    return words


def _mounts(plan: Plan) -> list[str]:
    words: list[str] = []
    for mount in plan.mounts:
        inside = [path for path in plan.files if path.startswith(mount.target.rstrip("/") + "/")]
        if mount.writable or not inside:
            words += ["--bind" if mount.writable else "--ro-bind", mount.source, mount.target]
        else:
            words += _opened(Path(mount.source), mount.target.rstrip("/"), inside)
    return words


def _opened(source: Path, target: str, inside: list[str]) -> list[str]:
    """Binds a read-only tree entry by entry wherever files that it does not have must appear.

    Bubblewrap cannot make a mount point in a read-only tree, so the folders on
    the way to a new file become folders of the sandbox's own (read-only at last).
    """
    words = ["--dir", target]
    heads = {path[len(target) + 1 :].partition("/")[0] for path in inside}
    for entry in sorted(os.scandir(source), key=lambda item: item.name):
        place = f"{target}/{entry.name}"
        deeper = [path for path in inside if path.startswith(f"{place}/")]
        if entry.name in heads and deeper and entry.is_dir(follow_symlinks=False):
            words += _opened(source / entry.name, place, deeper)
        elif place in inside:
            continue
        elif entry.is_symlink():
            words += ["--symlink", str(Path(entry.path).readlink()), place]
        else:
            words += ["--ro-bind", entry.path, place]
    return words
