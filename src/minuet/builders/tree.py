"""Reading what a build left behind without being led out of it.

The tree belongs to untrusted code: every step is opened without following
links, sizes are bounded, and archives leave out what points outside.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import posixpath
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

EPOCH = 1_600_000_000
"""Every file of an artifact has this time, so that equal content gives equal archives."""

_MAX_LINES, _MAX_LINE = 64 * 1024, 4 * 1024
_LAYERS = ("/app/", "/layers/")
_SYSTEM = ("/usr/", "/bin/", "/lib/", "/app/", "/layers/", "/opt/", "/etc/alternatives/")


class Tree:
    """A directory that somebody else filled."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str, limit: int = 1024 * 1024) -> str | None:
        """The text of a small plain file; None if it is not there, is a link, or leads through one."""
        content = self.content(name, limit)
        return None if content is None else content.decode("utf-8-sig", errors="replace")

    def content(self, name: str, limit: int) -> bytes | None:
        """The same as it is, up to `limit` bytes."""
        try:
            descriptor = self._open(name)
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        with os.fdopen(descriptor, "rb") as file:
            return file.read(limit)

    def lines(self, name: str) -> list[str]:
        """The lines of a small file that people write by hand: of the first 64 KiB, each cut at 4 KiB."""
        return [line[:_MAX_LINE] for line in (self.read(name, _MAX_LINES) or "").splitlines()]

    def has(self, name: str) -> bool:
        return self.read(name, 0) is not None

    def is_directory(self, name: str) -> bool:
        try:
            descriptor = self._open(name, os.O_DIRECTORY)
        except (OSError, ValueError):
            return False
        os.close(descriptor)
        return True

    def names(self) -> list[str]:
        """Plain files directly in the root."""
        return sorted(entry.name for entry in os.scandir(self.root) if entry.is_file(follow_symlinks=False))

    def files(self, suffix: str, limit: int) -> Iterator[str]:
        """Paths of plain files anywhere below that end so, sorted, at most `limit` of them."""
        found = (name for name in _walk(self.root, frozenset({".git"})) if name.endswith(suffix))
        for name in itertools.islice(found, limit):
            if not (self.root / name).is_symlink():
                yield name

    def digest(self, name: str, limit: int) -> str | None:
        """The SHA-256 of the names and contents at and below a path; None for more than `limit` bytes."""
        found = hashlib.sha256()
        for path in _walk(self.root, frozenset({".git", "node_modules"})):
            if name not in (path, ".") and not path.startswith(f"{name}/"):
                continue
            content = self.content(path, limit + 1)
            if content is None:
                continue
            limit -= len(content)
            if limit < 0:
                return None
            found.update(f"{path}\0{len(content)}\0".encode("utf-8", "surrogateescape") + content)
        return found.hexdigest()

    def _open(self, name: str, flags: int = 0) -> int:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise PermissionError(name)
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in parts[:-1]:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = inner
            last = parts[-1] if parts else "."
            return os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | flags, dir_fd=folder)
        finally:
            os.close(folder)


def archive(
    root: Path, leave_out: frozenset[str] = frozenset(), say: Callable[[str], None] = print, at: str = "/app"
) -> Callable[[IO[bytes]], None]:
    """Returns a writer of a deterministic tar of a tree: sorted, one time, one owner, no link that leads out.

    `at` is where the tree will be seen: a link into another layer is kept, by its whole path.
    """

    def write(file: IO[bytes]) -> None:
        with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1024 * 1024) as tar:
            for name in _walk(root, leave_out):
                member = _member(tar, root, name, say, at)
                if member is None:
                    continue
                if member.isreg():
                    with _plain(root / name) as content:
                        tar.addfile(member, content)
                else:
                    tar.addfile(member)

    return write


def _walk(root: Path, leave_out: frozenset[str]) -> Iterator[str]:
    """Every path below, folders before what is in them; without recursion, since nobody bounds how deep they lie."""
    waiting = [(entry.name, entry) for entry in _entries(root)]
    while waiting:
        name, entry = waiting.pop()
        if name in leave_out:
            continue
        yield name
        if entry.is_dir(follow_symlinks=False):
            waiting += [(f"{name}/{inner.name}", inner) for inner in _entries(root / name)]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, the first one last, for a stack to be taken from."""
    return sorted(os.scandir(folder), key=lambda item: item.name, reverse=True)


def _member(tar: tarfile.TarFile, root: Path, name: str, say: Callable[[str], None], at: str) -> tarfile.TarInfo | None:
    path = root / name
    if not (path.is_symlink() or path.is_dir() or path.is_file()):
        say(f"left out {name}: it is neither file, folder nor link")
        return None
    member = tar.gettarinfo(str(path), arcname=name)
    if member.islnk():
        # Each file is stored by itself: a hard link could name one that was left out.
        member.type = tarfile.REGTYPE
        member.size = path.lstat().st_size
    if member.issym() and not _stays_inside(name, member.linkname):
        whole = posixpath.normpath(posixpath.join(at, posixpath.dirname(name), member.linkname))
        if not whole.startswith(_LAYERS):
            say(f"left out {name}: it links out of the tree, to {member.linkname}")
            return None
        member.linkname = whole
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = EPOCH
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    member.pax_headers = {}
    return member


def _stays_inside(name: str, target: str) -> bool:
    if target.startswith("/"):
        return posixpath.normpath(target).startswith(_SYSTEM)
    return not posixpath.normpath(posixpath.join(posixpath.dirname(name), target)).startswith("..")


def _plain(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")
