"""What the platform's own processes see of the machine: a private mount namespace with short paths.

The launcher enters it at its start, as root only, and everything it forks
inherits it. Service uids thereby reach code and data at `/run/minuet` although
the checkout may lie below somebody's private home, and the paths of Unix
sockets stay below their limit of 107 bytes.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

import minuet
from minuet import system
from minuet.launcher import syscalls

ROOM = Path("/run/minuet")


@dataclass(frozen=True, slots=True)
class Program:
    """How to start Python with this very code: executable, folder of installed programs, environment."""

    executable: str
    programs: str
    environment: dict[str, str] = field(default_factory=dict)


def enter(data: Path, *, root: bool) -> tuple[Path, Program]:
    """Returns the data directory and the program as seen from now on."""
    prefix, base = Path(sys.prefix), Path(sys.base_prefix)
    source = Path(minuet.__file__).resolve().parent.parent
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    outside = not source.is_relative_to(prefix)
    if not (root and system.IS_LINUX):
        environment = {"PYTHONPATH": str(source)} if outside else {}
        return data, Program(sys.executable, str(prefix / "bin"), environment)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
    ROOM.mkdir(mode=0o755, exist_ok=True)
    syscalls.mount("minuet", str(ROOM), "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0755,size=1m")
    _bind(data, ROOM / "data")
    search = [str(_bind(source, ROOM / "src"))] if outside else []
    programs = Path("/usr/bin")
    executable = Path(sys.executable)
    if prefix != base:
        _bind(prefix, ROOM / "venv")
        programs, executable = ROOM / "venv/bin", ROOM / "venv/bin" / executable.name
    if not _reachable(Path(sys.executable).resolve()):
        executable = _bind(base, ROOM / "python") / "bin" / version
        search.append(str(ROOM / "venv/lib" / version / "site-packages"))
    environment = {"PYTHONPATH": os.pathsep.join(search)} if search else {}
    return ROOM / "data", Program(str(executable), str(programs), environment)


def _bind(source: Path, target: Path) -> Path:
    target.mkdir(mode=0o755)
    syscalls.mount(str(source), str(target), None, syscalls.MS_BIND | syscalls.MS_REC)
    return target


def _reachable(path: Path) -> bool:
    """Whether every user may pass through the folders above a file."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)
