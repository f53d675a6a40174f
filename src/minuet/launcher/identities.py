"""Who runs as which uid: fixed ones for the roles, recorded ones for tenants.

The launcher asks here before it starts anything. A uid that was given to a
workload or a build is kept until `release` says that its files are gone, so
that nobody ever inherits another tenant's files. Without root there is only
one uid, the launcher's own.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from minuet.kernel.errors import Exhausted
from minuet.launcher.settings import write_whole

ROLES = ("server", "builder", "agent", "gateway")
_OFFSETS = {"server": 1, "builder": 2, "agent": 3, "gateway": 4, "git": 5, "unpack": 6}
_FIRST_TENANT = 1000


@dataclass(frozen=True, slots=True)
class Identity:
    """What a process becomes: uid, gid, and the groups it reads others' files by."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def assume(self) -> None:
        """Drops to this identity for good; does nothing for a process that is not root."""
        if os.geteuid() != 0:
            return
        os.setgroups(list(self.groups))
        # As root these set the real, the effective and the saved number, on every kind of system.
        os.setgid(self.gid)
        os.setuid(self.uid)


@dataclass
class Identities:
    """The registry; every change is on disk before it is used."""

    path: Path
    base: int
    limit: int
    root: bool
    _given: dict[str, int] = field(default_factory=dict)
    _free: list[int] = field(default_factory=list)
    _next: int = 0

    def load(self) -> None:
        """Reads what earlier launchers recorded."""
        if self.path.exists():
            record = json.loads(self.path.read_bytes())
            self._given, self._free, self._next = record["given"], record["free"], record["next"]

    def of_role(self, role: str) -> Identity:
        """The fixed identity of a role, of `git` or of `unpack`."""
        if not self.root:
            return self._own()
        uid = self.base + _OFFSETS[role]
        if role == "git":
            return Identity(uid, self.base + _OFFSETS["builder"])
        groups = (self.base + _OFFSETS["gateway"], self.base + _OFFSETS["unpack"]) if role == "agent" else ()
        return Identity(uid, uid, groups)

    def of_workload(self, key: str) -> Identity:
        """A workload's own identity; its extra group may read unpacked artifacts."""
        return self._of_tenant(f"workload:{key}", (self.base + _OFFSETS["unpack"],))

    def of_build(self, organization: str) -> Identity:
        """The identity of one organization's builds."""
        return self._of_tenant(f"build:{organization}", ())

    def release_workload(self, key: str) -> None:
        """Gives a uid back; call only when none of its files is left."""
        number = self._given.pop(f"workload:{key}", None)
        if number is not None:
            self._free.append(number)
            self._save()

    def _own(self) -> Identity:
        return Identity(os.getuid(), os.getgid(), tuple(os.getgroups()))

    def _of_tenant(self, name: str, groups: tuple[int, ...]) -> Identity:
        if not self.root:
            return self._own()
        if name not in self._given:
            self._given[name] = self._take()
            self._save()
        uid = self.base + _FIRST_TENANT + self._given[name]
        return Identity(uid, uid, groups)

    def _take(self) -> int:
        # Fresh numbers first: a number comes back only when all others are used up.
        if self._next < self.limit:
            self._next += 1
            return self._next - 1
        if not self._free:
            raise Exhausted(f"all {self.limit} identities are in use", code="NoIdentity", hint="raise `identities`")
        return self._free.pop(0)

    def _save(self) -> None:
        record = {"given": self._given, "free": self._free, "next": self._next}
        write_whole(self.path, json.dumps(record).encode())
