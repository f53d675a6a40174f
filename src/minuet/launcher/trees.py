"""Walks and removes trees that strangers made: as deep, as wide and as odd as they like.

Runners measure what a command wrote, the launcher removes what instances and
builds left. Nothing here recurses, follows a link or needs a whole path, which
may be longer than the kernel takes.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minuet.kernel.errors import Unavailable

_RELATIVE_LIMIT = 2048
"""Bytes of a path below an open folder; half of what the kernel takes at once."""

_BLOCK = 512


class _Folder:
    """An open folder that closes itself when nothing below it waits to be walked any more."""

    def __init__(self, path: str, above: _Folder | None = None) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd: int = os.open(path, flags, dir_fd=above.fd if above else None)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.fd)


def walk(folder: Path) -> Iterator[tuple[int, os.DirEntry[str]]]:
    """Every entry below a folder, with the descriptor of the folder it is in, good until the next one.

    A folder is entered after it was given out, so that who walks may open it
    first. What vanishes meanwhile or may not be read is left out.
    """
    with contextlib.suppress(OSError):
        pending = [(_Folder(str(folder)), "")]
        while pending:
            above, path = pending.pop()
            with contextlib.suppress(OSError):
                here = _Folder(path or ".", above)
                base, prefix = (above, f"{path}/") if len(os.fsencode(path)) < _RELATIVE_LIMIT else (here, "")
                with os.scandir(here.fd) as entries:
                    for entry in entries:
                        yield here.fd, entry
                        if entry.is_dir(follow_symlinks=False):
                            pending.append((base, f"{prefix.lstrip('/')}{entry.name}"))


class Measure:
    """Adds up what files take, each once however many names it has.

    A file with holes counts with its full size, for that is what copying it
    takes; a small one counts with its blocks.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._seen: set[tuple[int, int]] = set()

    def add(self, found: os.stat_result) -> None:
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            if (found.st_dev, found.st_ino) in self._seen:
                return
            self._seen.add((found.st_dev, found.st_ino))
        size = found.st_size if stat.S_ISREG(found.st_mode) else 0
        self.bytes += max(size, found.st_blocks * _BLOCK)


def size_of(*folders: Path) -> int:
    """Bytes below some folders."""
    measure = Measure()
    for folder in folders:
        for _, entry in walk(folder):
            with contextlib.suppress(OSError):
                measure.add(entry.stat(follow_symlinks=False))
    return measure.bytes


def open_to_group(*folders: Path) -> int:
    """Gives the folders' group what the owner may do, so that the builder can read and delete all; returns the bytes."""
    measure = Measure()
    for folder in folders:
        for fd, entry in walk(folder):
            with contextlib.suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                measure.add(found)
                if not stat.S_ISLNK(found.st_mode):
                    _open(fd, entry.name, found.st_mode)
    return measure.bytes


def _open(fd: int, name: str, mode: int) -> None:
    permissions = stat.S_IMODE(mode)
    owner = permissions & 0o700 | (0o700 if stat.S_ISDIR(mode) else 0o600)
    wanted = (permissions & ~0o007) | owner | owner >> 3
    if wanted != permissions:
        os.chmod(name, wanted, dir_fd=fd)


def remove(path: Path) -> dict[str, Any]:
    """Removes a tree, or nothing when there is none; blocks, so it is called in a forked child.

    Raises `Unavailable` with what stood in the way.
    """
    if os.geteuid() != 0 and path.is_dir():
        # An owner who is not root must open a closed folder before it can be emptied.
        path.chmod(0o700)
        open_to_group(path)
    command = ("/bin/rm", "-rf", "--", str(path))
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace", env={})
    if done.returncode != 0:
        raise Unavailable(f"{path.name} cannot be removed: {done.stderr.strip()[:300]}", code="LauncherFailed")
    return {}
