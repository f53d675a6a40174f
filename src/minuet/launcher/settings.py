"""The launcher's settings, and where it keeps things below the data directory.

Read once at its start from `<data>/launcher/settings.toml`. Separate from the
settings kit of the other processes, whose libraries the launcher does not load.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from minuet.kernel.errors import NotFound, invalid_field
from minuet.kernel.names import unknown_key
from minuet.launcher.isolation import CLASSES

MIB = 1024 * 1024


def setting(default: Any = MISSING, *, unit: str = "", reason: str) -> Any:
    """A field of the settings, with what its value means and why it has its default."""
    described = {"unit": unit, "reason": reason}
    return field(metadata=described) if default is MISSING else field(default=default, metadata=described)


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator may choose; every field can stand in the settings file."""

    data: str = setting("..", unit="path", reason="the settings file lies in <data>/launcher")
    uid_base: int = setting(300_000, unit="uid", reason="above every user of common distributions")
    identities: int = setting(100_000, unit="uids", reason="one for each component and environment, with room")
    address_pool: str = setting(
        "", unit="IPv4 network", reason="empty: the first free /20 of 100.64.0.0/10, then remembered"
    )
    isolation: str = setting("auto", unit="class", reason="the strongest class that really works here")
    role_log_bytes: int = setting(8 * MIB, unit="bytes", reason="days of a role's talk; two files are kept")
    workload_log_bytes: int = setting(64 * MIB, unit="bytes", reason="some 300,000 lines for each workload")
    workload_segment_bytes: int = setting(16 * MIB, unit="bytes", reason="a search reads one segment in 10 ms")
    log_lines_per_second: int = setting(20_000, unit="lines/s", reason="a tenth of a core for one noisy instance")
    instances: int = setting(500, unit="instances", reason="about 1.2 MiB of shim each")
    unpacked_bytes: int = setting(4096 * MIB, unit="bytes", reason="the largest toolchain is below 1 GiB")
    unpacked_entries: int = setting(400_000, unit="files", reason="large dependency trees hold 100,000 files")


_CLASSES = ("auto", *CLASSES)


def load(path: Path) -> Settings:
    """Reads a settings file; raises `NotFound` or `Invalid` naming the key."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFound(f"there is no settings file {path}", code="SettingsNotFound") from error
    except tomllib.TOMLDecodeError as error:
        raise invalid_field(str(path), f"is not valid TOML: {error}") from error
    known = {item.name: item for item in fields(Settings)}
    for key, value in given.items():
        if key not in known:
            raise unknown_key("", key, known)
        expected: type = type(known[key].default)
        if type(value) is not expected or (isinstance(value, int) and value <= 0):
            raise invalid_field(key, f"must be a {'positive number' if expected is int else 'text'}", given=value)
    settings = Settings(**given)
    if settings.isolation not in _CLASSES:
        raise invalid_field("isolation", "is not a known class", given=settings.isolation, allowed=_CLASSES)
    return settings


@dataclass(frozen=True, slots=True)
class Layout:
    """Every path the launcher makes, below the data directory as its own processes see it."""

    data: Path

    @property
    def private(self) -> Path:
        return self.data / "launcher"

    @property
    def sockets(self) -> Path:
        return self.private / "sockets"

    @property
    def sealing_key(self) -> Path:
        return self.private / "sealing.key"

    @property
    def identities(self) -> Path:
        return self.private / "identities.json"

    @property
    def roles(self) -> Path:
        return self.private / "roles.json"

    @property
    def installation(self) -> Path:
        return self.private / "installation.json"

    @property
    def specs(self) -> Path:
        """One file for each instance, sealed values still sealed, for root only."""
        return self.private / "instances"

    @property
    def plane(self) -> Path:
        return self.data / "plane"

    @property
    def public_key(self) -> Path:
        return self.plane / "sealing.pub"

    @property
    def instances(self) -> Path:
        return self.plane / "instances"

    @property
    def logs(self) -> Path:
        return self.plane / "logs"

    @property
    def layers(self) -> Path:
        return self.plane / "artifacts" / "layers"

    @property
    def workspaces(self) -> Path:
        return self.data / "builder" / "workspaces"


def write_whole(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replaces a file as one step that survives a crash: written, synced, renamed."""
    fresh = path.with_name(f".{path.name}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    fresh.rename(path)
