"""Configurations as values: which names, sizes and paths are legal, and what a change makes of one."""

from __future__ import annotations

import datetime
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from minuet.kernel.errors import Exhausted, NotFound, invalid_field
from minuet.kernel.health import HealthCheck
from minuet.kernel.names import nearest
from minuet.render.inputs import Entry, EntryKind

MAX_ENTRIES = 200
MAX_VALUE = 32 * 1024
"""Bytes of one variable or secret."""

MAX_FILE = 256 * 1024
"""Bytes of one file."""

MAX_TOTAL = 512 * 1024
"""Bytes of all values of a component in an environment; the documents of a plane have to fit into one frame."""

MAX_NAME = 128
MAX_MOUNT_PATH = 500

RESERVED = frozenset({"PORT", "HOME", "PATH"})
"""Variables that the platform sets for every application."""

RESERVED_PREFIX = "MINUET_"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_FORBIDDEN_ROOTS = ("/proc", "/sys", "/dev", "/run", "/tmp")  # noqa: S108 - places that are refused


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One configured value at rest: a plain value, or a sealed one. `size` is of the plain bytes."""

    name: str
    kind: EntryKind
    version: int
    size: int
    updated_at: datetime.datetime
    value: str | None = None
    sealed: str | None = field(default=None, repr=False)
    mount_path: str | None = None

    def entry(self) -> Entry:
        """Returns the form that a workload is rendered from."""
        return Entry(self.name, self.kind, self.version, self.value, self.mount_path)


@dataclass(frozen=True, slots=True)
class Configuration:
    """One immutable revision of what a component is configured with in an environment; 0 is the empty one."""

    organization_id: str
    project_id: str
    component_id: str
    environment_id: str
    revision: int
    entries: tuple[StoredEntry, ...] = ()
    health: HealthCheck | None = None

    def context(self, name: str) -> str:
        """What a sealed value is bound to: a ciphertext copied elsewhere does not open."""
        place = f"{self.organization_id}/{self.project_id}/{self.component_id}/{self.environment_id}"
        return f"configuration/{place}/{name}"


@dataclass(frozen=True, slots=True)
class Setting:
    """One value as it was given, already checked and, if it is a secret, sealed."""

    name: str
    kind: EntryKind
    size: int
    value: str | None = None
    sealed: str | None = field(default=None, repr=False)
    mount_path: str | None = None


def check_entry(position: int, name: str, kind: EntryKind, value: str, mount_path: str | None) -> str | None:
    """Raises `Invalid` naming the field of `set` that is wrong; returns the mount path in its normal form."""
    where = f"set.{position}"
    _check_name(f"{where}.name", name, kind)
    limit = MAX_FILE if kind.is_file else MAX_VALUE
    size = len(value.encode())
    if size > limit:
        raise invalid_field(f"{where}.value", f"has {size} bytes, at most {limit} are allowed")
    if "\x00" in value:
        raise invalid_field(f"{where}.value", "holds a NUL character")
    if kind.is_file:
        return _check_mount_path(f"{where}.mountPath", mount_path)
    if mount_path is not None:
        raise invalid_field(f"{where}.mountPath", "is only for files", hint="use the kind file or secret-file")
    return None


def _check_name(where: str, name: str, kind: EntryKind) -> None:
    if len(name) > MAX_NAME:
        raise invalid_field(where, f"is {len(name)} characters long, at most {MAX_NAME} are allowed")
    if kind.is_file:
        if not _FILE.fullmatch(name):
            raise invalid_field(where, "must hold only letters, digits, dots, hyphens and _", given=name)
        return
    if not _VARIABLE.fullmatch(name):
        suggestion = re.sub(r"[^A-Za-z0-9_]", "_", name).lstrip("0123456789")
        hint = f"for example {suggestion}" if suggestion else None
        raise invalid_field(where, "must match [A-Za-z_][A-Za-z0-9_]*", given=name, hint=hint)
    if name in RESERVED or name.startswith(RESERVED_PREFIX):
        raise invalid_field(
            where, "is set by the platform", given=name, hint=f"{', '.join(sorted(RESERVED))} and MINUET_* are reserved"
        )


def _check_mount_path(where: str, path: str | None) -> str:
    if path is None:
        raise invalid_field(where, "is required for a file", hint="for example /app/config.json")
    if len(path) > MAX_MOUNT_PATH or not path.isprintable():
        raise invalid_field(where, f"must have at most {MAX_MOUNT_PATH} printable characters")
    if not path.startswith("/") or posixpath.normpath(path) != path or path == "/" or path.startswith("//"):
        raise invalid_field(where, "must be an absolute path of a file, without dots or a trailing slash", given=path)
    if any(path == root or path.startswith(f"{root}/") for root in _FORBIDDEN_ROOTS):
        raise invalid_field(where, "lies where nothing may be mounted", given=path, hint="mount below /app or /etc")
    return path


def changed(
    current: Configuration,
    settings: Sequence[Setting],
    unset: Sequence[str],
    health: HealthCheck | None,
    now: datetime.datetime,
) -> Configuration:
    """Returns the next revision, with `health` as its health check.

    Raises for names that are not set, clashing mount paths and exceeded limits.
    """
    revision = current.revision + 1
    entries = {entry.name: entry for entry in current.entries}
    for name in unset:
        if name not in entries:
            raise _not_set(name, entries)
        del entries[name]
    for given in settings:
        entries[given.name] = StoredEntry(
            name=given.name,
            kind=given.kind,
            version=revision,
            size=given.size,
            updated_at=now,
            value=given.value,
            sealed=given.sealed,
            mount_path=given.mount_path,
        )
    kept = tuple(entries[name] for name in sorted(entries))
    _check_whole(kept)
    return replace(current, revision=revision, entries=kept, health=health)


def _not_set(name: str, entries: Mapping[str, StoredEntry]) -> NotFound:
    close = nearest(name, entries)
    hint = f"did you mean {close}?" if close else "`minuet list config <component>` shows what is set"
    return NotFound(f"{name} is not set", code="ConfigurationNotFound", hint=hint)


def _check_whole(entries: Sequence[StoredEntry]) -> None:
    if len(entries) > MAX_ENTRIES:
        raise Exhausted(f"{len(entries)} values are configured, at most {MAX_ENTRIES} are allowed")
    total = sum(entry.size for entry in entries)
    if total > MAX_TOTAL:
        raise Exhausted(f"all values together have {total} bytes, at most {MAX_TOTAL} are allowed")
    paths = sorted((entry.mount_path, entry.name) for entry in entries if entry.mount_path is not None)
    for path, name in paths:
        for other, other_name in paths:
            if name != other_name and (path == other or other.startswith(f"{path}/")):
                raise invalid_field("set.mountPath", f"of {name} and {other_name} clash", given=other)
