"""What the data plane knows without anybody's help: desired documents and what it remembers of them.

One SQLite file with a checksum beside each document, and a second generation of
it that is used when the first is torn. A revision is durable here before it is
acknowledged or acted on; older ones, other content under a known number, and
gaps are refused; documents that cannot be read are set aside while the rest go on.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from minuet.agent.model import Failure, Memory
from minuet.kernel.canonical import canonical_json, digest_of
from minuet.kernel.errors import Conflict, Unavailable
from minuet.protocol.desired import Revision, Tombstone, Workload

FILE = "inventory.db"
PREVIOUS = "inventory.previous.db"
_SHRINK_SHARE = 0.2

_SCHEMA = """
CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER, revision INTEGER, digest TEXT);
CREATE TABLE IF NOT EXISTS documents (key TEXT PRIMARY KEY, kind TEXT, body TEXT, checksum TEXT);
CREATE TABLE IF NOT EXISTS memory (key TEXT PRIMARY KEY, serving TEXT, failure TEXT, checksum TEXT);
CREATE TABLE IF NOT EXISTS held (key TEXT PRIMARY KEY, revision INTEGER);
CREATE TABLE IF NOT EXISTS pins (name TEXT PRIMARY KEY, value TEXT);
"""


@dataclass(frozen=True, slots=True)
class Position:
    """The last revision that is durable here."""

    epoch: int = 0
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything the plan needs of the desired state."""

    workloads: Mapping[str, Workload] = field(default_factory=dict)
    tombstones: frozenset[str] = frozenset()
    memories: Mapping[str, Memory] = field(default_factory=dict)
    held: frozenset[str] = frozenset()


class Inventory:
    """The file and its second generation; used from one thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.alarms: list[str] = []
        self._db = self._open()

    def close(self) -> None:
        self._db.close()

    @property
    def position(self) -> Position:
        row = self._db.execute("SELECT epoch, revision FROM position").fetchone()
        return Position(*row) if row else Position()

    def contents(self) -> Contents:
        """Reads everything; a document with a wrong checksum is left out and reported."""
        workloads, tombstones = {}, set()
        for key, kind, body, checksum in self._db.execute("SELECT key, kind, body, checksum FROM documents"):
            if digest_of(body.encode()) != checksum:
                self.alarms.append(f"the document {key} is damaged and was left out")
            elif kind == "tombstone":
                tombstones.add(key)
            else:
                workloads[key] = Workload.model_validate_json(body)
        held = frozenset(key for (key,) in self._db.execute("SELECT key FROM held"))
        return Contents(workloads, frozenset(tombstones), dict(self._memories()), held)

    def accept(self, revision: Revision) -> bool:
        """Makes a revision durable; says whether it was new.

        Raises `Conflict`: `OldRevision`, `RevisionAltered` (same number, other
        content) or `RevisionGap` (the sender must go back to our position).
        """
        digest = digest_of(canonical_json(revision.model_dump(mode="json")))
        position = self.position
        if (revision.epoch, revision.revision) < (position.epoch, position.revision):
            raise Conflict("this revision is older than the one in force", code="OldRevision")
        if (revision.epoch, revision.revision) == (position.epoch, position.revision):
            return self._check_repeated(revision, digest)
        follows = revision.epoch == position.epoch and revision.previous == position.revision
        if not revision.snapshot and not follows:
            raise Conflict(f"a revision after {position.revision} is missing", code="RevisionGap")
        with self._transaction():
            self._apply(revision)
            self._db.execute(
                "INSERT OR REPLACE INTO position VALUES (1, ?, ?, ?)", (revision.epoch, revision.revision, digest)
            )
        self._keep_generation()
        return True

    def remember(self, key: str, memory: Memory) -> None:
        """Makes what was learned of a workload durable."""
        serving = memory.serving.wire() if memory.serving else None
        failure = canonical_json(_failure_fields(memory.failure)).decode() if memory.failure else None
        checksum = digest_of(f"{serving}{failure}".encode())
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO memory VALUES (?, ?, ?, ?)", (key, serving, failure, checksum))

    def forget(self, key: str) -> None:
        """Removes a workload whose tombstone was carried out."""
        with self._transaction():
            for table in ("documents", "memory", "held"):
                self._db.execute(f"DELETE FROM {table} WHERE key = ?", (key,))  # noqa: S608 - names of ours

    def pinned(self, name: str) -> str | None:
        """A value that was learned once and must not change, such as the control plane's key."""
        row = self._db.execute("SELECT value FROM pins WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def pin(self, name: str, value: str) -> None:
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO pins VALUES (?, ?)", (name, value))

    def _check_repeated(self, revision: Revision, digest: str) -> bool:
        row = self._db.execute("SELECT digest FROM position").fetchone()
        if row and row[0] != digest and not revision.snapshot:
            self.alarms.append(f"revision {revision.revision} came again with other content")
            raise Conflict("this revision came before with other content", code="RevisionAltered")
        return False

    def _apply(self, revision: Revision) -> None:
        tombstones = [change for change in revision.changes if isinstance(change, Tombstone)]
        held = self._guard(tombstones)
        for change in revision.changes:
            if isinstance(change, Workload):
                self._put(change.key, "workload", change.wire())
            elif change.key in held:
                self._db.execute("INSERT OR REPLACE INTO held VALUES (?, ?)", (change.key, revision.revision))
            elif self._known(change.key):
                self._put(change.key, "tombstone", change.wire())

    def _guard(self, tombstones: list[Tombstone]) -> set[str]:
        """Holds unconfirmed tombstones when there are more than a fifth of what runs."""
        unconfirmed = {t.key for t in tombstones if not t.confirmed_by and self._known(t.key)}
        (running,) = self._db.execute("SELECT count(*) FROM documents WHERE kind = 'workload'").fetchone()
        if len(unconfirmed) <= max(1, int(running * _SHRINK_SHARE)):
            return set()
        self.alarms.append(f"{len(unconfirmed)} of {running} workloads would be removed unconfirmed; all are held")
        return unconfirmed

    def _known(self, key: str) -> bool:
        return self._db.execute("SELECT 1 FROM documents WHERE key = ?", (key,)).fetchone() is not None

    def _put(self, key: str, kind: str, body: str) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?)", (key, kind, body, digest_of(body.encode()))
        )
        self._db.execute("DELETE FROM held WHERE key = ?", (key,))

    def _memories(self) -> Iterator[tuple[str, Memory]]:
        import json

        for key, serving, failure, checksum in self._db.execute("SELECT key, serving, failure, checksum FROM memory"):
            if digest_of(f"{serving}{failure}".encode()) != checksum:
                self.alarms.append(f"what was remembered of {key} is damaged and was left out")
                continue
            lost = json.loads(failure) if failure else None
            yield (
                key,
                Memory(
                    Workload.model_validate_json(serving) if serving else None,
                    Failure(**(lost | {"log_tail": tuple(lost["log_tail"])})) if lost else None,
                ),
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._rollback()
            raise Unavailable(f"the inventory cannot be written: {error}", code="InventoryUnwritable") from error
        except BaseException:
            self._rollback()
            raise

    def _rollback(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("ROLLBACK")

    def _open(self) -> sqlite3.Connection:
        """Opens the file; a torn one is set aside and the previous generation takes its place."""
        path = self._directory / FILE
        for source in (path, self._directory / PREVIOUS):
            if source != path and source.exists():
                self.alarms.append("the inventory was damaged; its previous generation is in use")
                for suffix in ("", "-wal", "-shm"):
                    _set_aside(path.with_name(path.name + suffix))
                path.write_bytes(source.read_bytes())
            try:
                return _connect(path)
            except sqlite3.DatabaseError:
                continue
        _set_aside(path)
        self.alarms.append(
            "the inventory and its previous generation were damaged; nothing is known until the link is up"
        )
        return _connect(path)

    def _keep_generation(self) -> None:
        temporary = self._directory / f".{PREVIOUS}.new"
        temporary.unlink(missing_ok=True)
        target = sqlite3.connect(temporary)
        try:
            self._db.backup(target)
        finally:
            target.close()
        temporary.replace(self._directory / PREVIOUS)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        (verdict,) = db.execute("PRAGMA quick_check").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        db.executescript(_SCHEMA)
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db


def _set_aside(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.replace(path.with_name(f"{path.name}.damaged"))


def _failure_fields(failure: Failure) -> dict[str, object]:
    return {
        "generation": failure.generation,
        "reason": failure.reason,
        "message": failure.message,
        "log_tail": list(failure.log_tail),
    }
