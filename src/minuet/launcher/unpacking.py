"""Unpacks the tar of a layer, trusting nothing in it.

The launcher forks a child that calls `unpack_here` inside an empty folder,
which it has made its root, under a uid of its own, without network and behind
the filter of system calls. What the archive may hold: folders, plain files,
and links that stay within the tree or point at the system's own programs.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import posixpath
import resource
import tarfile
from pathlib import Path
from typing import IO

from minuet import system
from minuet.kernel.errors import Exhausted, Invalid
from minuet.launcher import network, seccomp, syscalls
from minuet.launcher.identities import Identity

_CHUNK = 1024 * 1024
_SYSTEM = (
    "/usr/",
    "/bin/",
    "/lib/",
    "/lib64/",
    "/sbin/",
    "/app/",
    "/layers/",
    "/opt/",
    "/etc/ssl/",
    "/etc/alternatives/",
)
"""Where an absolute link may point: at what a sandbox really has there, seen from inside it."""


class _Hashing(io.RawIOBase):
    """Passes a file through and computes its digest on the way."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        return data

    def readable(self) -> bool:
        return True


def unpack_in(folder: Path, tar: int, digest: str, identity: Identity, limits: tuple[int, int]) -> dict[str, int]:
    """Confines the calling process to `folder` for good, then unpacks the archive behind `tar` into it."""
    os.umask(0o027)
    # Loaded before the walls go up: the codecs are read from outside of the folder.
    import bz2  # noqa: F401
    import encodings.idna  # noqa: F401
    import gzip  # noqa: F401
    import lzma  # noqa: F401

    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits[0], limits[0]))
    if os.geteuid() == 0:
        if system.IS_LINUX:
            network.isolate()
        os.chroot(folder)
        os.chdir("/")
        identity.assume()
    else:
        os.chdir(folder)
    if seccomp.supported():
        syscalls.install_filter(seccomp.program())
    return unpack_here(os.fdopen(tar, "rb"), digest, *limits)


def unpack_here(archive: IO[bytes], digest: str, max_bytes: int, max_entries: int) -> dict[str, int]:
    """Unpacks into the current folder; raises `Invalid` or `Exhausted` and leaves a part behind."""
    hashing = _Hashing(archive)
    unpacking = _Unpacking(max_bytes, max_entries)
    try:
        with tarfile.open(fileobj=hashing, mode="r|*", bufsize=_CHUNK) as tar:
            for member in tar:
                unpacking.add(tar, member)
    except (tarfile.TarError, EOFError, UnicodeError) as error:
        raise Invalid(f"the archive is not readable: {error}", code="BadArchive") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise Exhausted("the disk is full", code="DiskFull") from error
        raise Invalid(f"the archive cannot be unpacked: {error}", code="BadArchive") from error
    while hashing.read(_CHUNK):
        pass
    found = f"sha256:{hashing.digest.hexdigest()}"
    if found != digest:
        raise Invalid(f"the archive has digest {found}, not {digest}", code="BadDigest")
    unpacking.finish()
    return {"entries": unpacking.entries, "bytes": unpacking.bytes}


class _Unpacking:
    """Checks one member after another against what is there already."""

    def __init__(self, max_bytes: int, max_entries: int) -> None:
        self.entries = 0
        self.bytes = 0
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._links: set[str] = set()
        self._files: set[str] = set()
        self._folders: dict[str, int] = {}

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = self._checked(member.name)
        if not name:
            return
        self.entries += 1
        if self.entries > self._max_entries:
            raise Exhausted(f"the archive holds more than {self._max_entries} entries", code="ArchiveTooLarge")
        self._make_folders(posixpath.dirname(name))
        if member.isdir():
            self._make_folders(name)
            self._folders[name] = member.mode
        elif member.issym():
            self._add_link(name, member.linkname)
        elif member.islnk():
            self._add_hard_link(name, member.linkname)
        elif member.isreg():
            self._add_file(tar, member, name)
        else:
            raise Invalid(f"{name} is neither file, folder nor link", code="BadArchive")

    def finish(self) -> None:
        """Folders get their modes last, for a read-only one could not be filled."""
        for name in self._folders:
            Path(name).chmod(0o750)
        Path().chmod(0o750)

    def _checked(self, name: str) -> str:
        if name.startswith("/") or "\0" in name or ".." in name.split("/"):
            raise Invalid(f"{name!r} lies outside of the archive", code="BadArchive")
        clean = posixpath.normpath(name)
        if clean == ".":
            return ""
        parts = clean.split("/")
        if any("/".join(parts[:count]) in self._links for count in range(1, len(parts))):
            raise Invalid(f"{clean!r} lies behind a link", code="BadArchive")
        return clean

    def _make_folders(self, name: str) -> None:
        if name and name not in self._folders:
            self._make_folders(posixpath.dirname(name))
            self._replace(name)
            Path(name).mkdir(mode=0o750, exist_ok=True)
            self._folders[name] = 0o750

    def _add_link(self, name: str, target: str) -> None:
        if target.startswith("/"):
            allowed = posixpath.normpath(target).startswith(_SYSTEM)
        else:
            allowed = not posixpath.normpath(posixpath.join(posixpath.dirname(name), target)).startswith("..")
        if not allowed:
            raise Invalid(f"the link {name} points out of the tree, to {target}", code="BadArchive")
        self._replace(name)
        Path(name).symlink_to(target)
        self._links.add(name)

    def _add_hard_link(self, name: str, target: str) -> None:
        other = self._checked(target)
        if other not in self._files:
            raise Invalid(f"the link {name} points at {target}, which is no file of the archive", code="BadArchive")
        self._replace(name)
        os.link(other, name, follow_symlinks=False)
        self._files.add(name)

    def _add_file(self, tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
        self.bytes += member.size
        if self.bytes > self._max_bytes:
            raise Exhausted(f"the archive holds more than {self._max_bytes} bytes", code="ArchiveTooLarge")
        self._replace(name)
        # Neither setuid nor write permission for others survives; the group is the workloads'.
        mode = 0o640 | (0o110 if member.mode & 0o100 else 0)
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        source = tar.extractfile(member)
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)
            while source and (data := source.read(_CHUNK)):
                file.write(data)
        os.utime(name, (member.mtime, member.mtime))
        self._files.add(name)

    def _replace(self, name: str) -> None:
        """A later entry takes the place of an earlier file or link of the same name."""
        if name in self._files or name in self._links:
            Path(name).unlink()
            self._files.discard(name)
            self._links.discard(name)
