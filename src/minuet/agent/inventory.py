"""What the data plane knows without anybody's help: desired documents and what it remembers of them.

One SQLite file with a checksum beside each document, and a second generation of
it that is used when the first is torn. A revision is durable here before it is
acknowledged or acted on; older ones, other content under a known number, and
gaps are refused; documents that cannot be read are set aside while the rest go on.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from minuet.agent.model import Failure, Memory
from minuet.kernel.canonical import canonical_json, digest_of
from minuet.kernel.errors import Conflict, Unavailable
from minuet.protocol.desired import Revision, Tombstone, Unreadable, Workload

FILE = "inventory.db"
PREVIOUS = "inventory.previous.db"
_SHRINK_SHARE = 0.2
_ALARMS_KEPT = 50

_SCHEMA = """
CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER, revision INTEGER, digest TEXT, checksum TEXT);
CREATE TABLE IF NOT EXISTS documents (key TEXT PRIMARY KEY, kind TEXT, body TEXT, checksum TEXT);
CREATE TABLE IF NOT EXISTS memory (key TEXT PRIMARY KEY, serving TEXT, failure TEXT, checksum TEXT);
CREATE TABLE IF NOT EXISTS aside (key TEXT PRIMARY KEY, content TEXT);
CREATE TABLE IF NOT EXISTS held (key TEXT PRIMARY KEY, revision INTEGER);
CREATE TABLE IF NOT EXISTS pins (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS log (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER, revision INTEGER, digest TEXT);
CREATE TABLE IF NOT EXISTS recent (number INTEGER PRIMARY KEY, key TEXT, digest TEXT, UNIQUE (key, digest));
"""

SCHEMA_VERSION = 1
"""Kept in the file as `user_version`; changes only add tables, so that an older agent can use the file of a newer one."""

KEPT_RELEASES = 4
"""Artifacts of a workload that stay on this host: the one that serves, and the three before it as the way back."""


@dataclass(frozen=True, slots=True)
class Position:
    """The last revision that is durable here; `log` is the digest of the log up to it, if that is known."""

    epoch: int = 0
    revision: int = 0
    log: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything the plan needs of the desired state."""

    workloads: Mapping[str, Workload] = field(default_factory=dict)
    tombstones: frozenset[str] = frozenset()
    memories: Mapping[str, Memory] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    aside: Mapping[str, Unreadable] = field(default_factory=dict)
    recent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Digests of the artifacts that last served each workload, newest last."""


class Inventory:
    """The file and its second generation; used from one thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.alarms: list[str] = []
        self._db = self._open()
        self._read_set_aside()

    def close(self) -> None:
        self._db.close()

    @property
    def position(self) -> Position:
        # What an older agent wrote meanwhile has no digest, and the one that is left is of another place.
        joined = "position LEFT JOIN log USING (epoch, revision)"
        row = self._db.execute(f"SELECT epoch, revision, log.digest FROM {joined}").fetchone()  # noqa: S608 - text of ours
        return Position(*row) if row else Position()

    def contents(self) -> Contents:
        """Reads everything; a document that is damaged is left out and reported."""
        workloads, tombstones = {}, set()
        for key, kind, body, checksum in self._db.execute("SELECT key, kind, body, checksum FROM documents"):
            if _document_checksum(key, kind, body) != checksum:
                self._alarm(f"the document {key} is damaged and was left out")
            elif kind == "tombstone":
                tombstones.add(key)
            else:
                try:
                    workloads[key] = Workload.model_validate_json(body)
                except ValidationError:
                    self._alarm(f"the document {key} was written by a newer agent and was left out")
        held = frozenset(key for (key,) in self._db.execute("SELECT key FROM held"))
        return Contents(workloads, frozenset(tombstones), dict(self._memories()), held, self._aside(), self._recent())

    def accept(self, revision: Revision) -> bool:
        """Makes a revision durable; says whether it was new.

        Raises `Conflict`: `OldRevision`, `RevisionAltered` (same number, other
        content), `RevisionGap` (the sender must go back to our position) or
        `LogDiverged` (it builds on another history than the one held here).
        """
        digest = digest_of(canonical_json(revision.model_dump(mode="json", exclude={"digest", "previous_digest"})))
        position = self.position
        if (revision.epoch, revision.revision) < (position.epoch, position.revision):
            raise Conflict("this revision is older than the one in force", code="OldRevision")
        if (revision.epoch, revision.revision) == (position.epoch, position.revision):
            self._check_history(position.log, revision.digest if revision.snapshot else None)
            return self._check_repeated(revision, digest)
        follows = revision.epoch == position.epoch and revision.previous == position.revision
        if not revision.snapshot and not follows:
            raise Conflict(f"a revision after {position.revision} is missing", code="RevisionGap")
        if not revision.snapshot:
            self._check_history(position.log, revision.previous_digest)
        with self._transaction():
            self._apply(revision)
            place = (revision.epoch, revision.revision, digest)
            self._db.execute(
                "INSERT OR REPLACE INTO position VALUES (1, ?, ?, ?, ?)", (*place, _position_checksum(*place))
            )
            log = (revision.epoch, revision.revision, revision.digest)
            self._db.execute("INSERT OR REPLACE INTO log VALUES (1, ?, ?, ?)", log)
        self._keep_generation()
        return True

    def remember(self, key: str, memory: Memory) -> None:
        """Makes what was learned of a workload durable."""
        serving = memory.serving.wire() if memory.serving else None
        failure = canonical_json(_failure_fields(memory.failure)).decode() if memory.failure else None
        checksum = digest_of(f"{serving}{failure}".encode())
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO memory VALUES (?, ?, ?, ?)", (key, serving, failure, checksum))
            if memory.serving is not None:
                _note_recent(self._db, key, memory.serving.artifact.digest)

    def forget(self, key: str) -> None:
        """Removes a workload whose tombstone was carried out; one that was declared again meanwhile stays."""
        with self._transaction():
            if self._kind(key) != "tombstone":
                return
            for table in ("documents", "memory", "held", "recent"):
                self._db.execute(f"DELETE FROM {table} WHERE key = ?", (key,))  # noqa: S608 - names of ours

    def pinned(self, name: str) -> str | None:
        """A value that was learned once and must not change, such as the control plane's key."""
        row = self._db.execute("SELECT value FROM pins WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def pin(self, name: str, value: str) -> None:
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO pins VALUES (?, ?)", (name, value))

    def _check_history(self, held: str | None, theirs: str | None) -> None:
        """Equal numbers of one epoch are the same revision only if what came before was the same, too."""
        if held is not None and theirs is not None and held != theirs:
            self._alarm("the control plane's log is another one than the one held here; it must begin a new epoch")
            raise Conflict("this revision builds on another log than the one held here", code="LogDiverged")

    def _check_repeated(self, revision: Revision, digest: str) -> bool:
        row = self._db.execute("SELECT digest FROM position").fetchone()
        if row and row[0] != digest and not revision.snapshot:
            self._alarm(f"revision {revision.revision} came again with other content")
            raise Conflict("this revision came before with other content", code="RevisionAltered")
        return False

    def _apply(self, revision: Revision) -> None:
        tombstones = [change for change in revision.changes if isinstance(change, Tombstone)]
        held = self._guard(tombstones)
        for change in revision.changes:
            if change.key in held:
                self._db.execute("INSERT OR REPLACE INTO held VALUES (?, ?)", (change.key, revision.revision))
            else:
                self._put(change)
        for document in revision.unreadable:
            self._set_document_aside(document)

    def _guard(self, tombstones: list[Tombstone]) -> set[str]:
        """Holds unconfirmed tombstones when there are more than a fifth of what runs."""
        unconfirmed = {t.key for t in tombstones if not t.confirmed_by and self._kind(t.key) == "workload"}
        (running,) = self._db.execute("SELECT count(*) FROM documents WHERE kind = 'workload'").fetchone()
        if len(unconfirmed) <= max(1, int(running * _SHRINK_SHARE)):
            return set()
        self._alarm(f"{len(unconfirmed)} of {running} workloads would be removed unconfirmed; all are held")
        return unconfirmed

    def _kind(self, key: str) -> str | None:
        row = self._db.execute("SELECT kind FROM documents WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def _put(self, change: Workload | Tombstone) -> None:
        if change.kind == "workload" and self._kind(change.key) == "tombstone":
            # What served before the removal must not come back while the new document starts.
            self._db.execute("DELETE FROM memory WHERE key = ?", (change.key,))
        body = change.wire()
        row = (change.key, change.kind, body, _document_checksum(change.key, change.kind, body))
        self._db.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?)", row)
        for table in ("held", "aside"):
            self._db.execute(f"DELETE FROM {table} WHERE key = ?", (change.key,))  # noqa: S608 - names of ours

    def _set_document_aside(self, change: Unreadable) -> None:
        """Keeps what this version cannot read; the document before it stays in force."""
        self._db.execute("INSERT OR REPLACE INTO aside VALUES (?, ?)", (change.key, change.wire()))
        self._alarm(f"the document {change.key} cannot be read and was set aside: {change.problem}")

    def _read_set_aside(self) -> None:
        """An agent that was upgraded may read now what it could not before."""
        for key, lost in self._aside().items():
            try:
                workload = Workload.model_validate_json(lost.body)
            except ValidationError:
                self._alarm(f"the document {key} cannot be read and was set aside: {lost.problem}")
                continue
            with self._transaction():
                self._put(workload)

    def _aside(self) -> dict[str, Unreadable]:
        found: dict[str, Unreadable] = {}
        for key, content in self._db.execute("SELECT key, content FROM aside"):
            with contextlib.suppress(ValidationError):
                found[key] = Unreadable.model_validate_json(content)
        return found

    def _recent(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for key, digest in self._db.execute("SELECT key, digest FROM recent ORDER BY number"):
            found[key] = (*found.get(key, ()), digest)
        return found

    def _alarm(self, text: str) -> None:
        """Adds a warning once; the oldest go when there are too many."""
        if text not in self.alarms:
            self.alarms.append(text)
            del self.alarms[:-_ALARMS_KEPT]

    def _memories(self) -> Iterator[tuple[str, Memory]]:
        for key, serving, failure, checksum in self._db.execute("SELECT key, serving, failure, checksum FROM memory"):
            if digest_of(f"{serving}{failure}".encode()) != checksum:
                self._alarm(f"what was remembered of {key} is damaged and was left out")
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
        except sqlite3.DatabaseError as error:
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
        path, previous = self._directory / FILE, self._directory / PREVIOUS
        if not previous.exists() or _size(path) > 0:
            with contextlib.suppress(sqlite3.DatabaseError):
                return _connect(path)
        if previous.exists():
            self._alarm("the inventory was damaged; its previous generation is in use")
            _set_aside(path)
            path.write_bytes(previous.read_bytes())
            with contextlib.suppress(sqlite3.DatabaseError):
                return _connect(path)
        _set_aside(path)
        self._alarm("the inventory and its previous generation were damaged; nothing is known until the link is up")
        return _connect(path)

    def _keep_generation(self) -> None:
        """Copies the file beside itself; when that fails, the older copy stays and the revision counts all the same."""
        temporary = self._directory / f".{PREVIOUS}.new"
        try:
            temporary.unlink(missing_ok=True)
            with contextlib.closing(sqlite3.connect(temporary)) as target:
                self._db.backup(target)
            temporary.replace(self._directory / PREVIOUS)
        except (OSError, sqlite3.Error) as error:
            self._alarm(f"the inventory's second generation cannot be written: {error}")


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    # Damaged text must be told by its checksum; it must not end the reading.
    db.text_factory = lambda raw: raw.decode(errors="replace")
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.executescript(_SCHEMA)
        _check(db)
        _migrate(db)
    except sqlite3.DatabaseError as error:
        db.close()
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            # A full disk is no damage: nothing may be set aside for it.
            raise Unavailable(f"the inventory cannot be written: {error}", code="InventoryUnwritable") from error
        raise
    return db


def _migrate(db: sqlite3.Connection) -> None:
    """Brings the file of an older agent up to date; one of a newer agent stays as it is."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version >= SCHEMA_VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    for key, serving in db.execute("SELECT key, serving FROM memory WHERE serving IS NOT NULL").fetchall():
        with contextlib.suppress(ValidationError):
            _note_recent(db, key, Workload.model_validate_json(serving).artifact.digest)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")


def _note_recent(db: sqlite3.Connection, key: str, digest: str) -> None:
    """Makes an artifact the newest of its workload; one that was there already moves to the end."""
    db.execute("INSERT OR REPLACE INTO recent (key, digest) VALUES (?, ?)", (key, digest))
    newest = "SELECT number FROM recent WHERE key = ? ORDER BY number DESC LIMIT ?"
    db.execute(f"DELETE FROM recent WHERE key = ? AND number NOT IN ({newest})", (key, key, KEPT_RELEASES))  # noqa: S608 - text of ours


def _check(db: sqlite3.Connection) -> None:
    """Raises `sqlite3.DatabaseError` unless the file's structure and every checksum in it are right."""
    (verdict,) = db.execute("PRAGMA integrity_check").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    rows = [
        (_position_checksum(*place), checksum)
        for *place, checksum in db.execute("SELECT epoch, revision, digest, checksum FROM position")
    ]
    rows += [
        (_document_checksum(*document), checksum)
        for *document, checksum in db.execute("SELECT key, kind, body, checksum FROM documents")
    ]
    if any(found != expected for found, expected in rows):
        raise sqlite3.DatabaseError("a checksum does not fit")


def _position_checksum(epoch: int, revision: int, digest: str) -> str:
    return digest_of(f"{epoch}/{revision}/{digest}".encode())


def _document_checksum(key: str, kind: str, body: str) -> str:
    return digest_of(f"{key}\n{kind}\n{body}".encode())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _set_aside(path: Path) -> None:
    """Keeps the damaged file for a look; a log that is left behind would be played into the file that follows."""
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        with contextlib.suppress(FileNotFoundError):
            part.replace(part.with_name(f"{part.name}.damaged"))


def _failure_fields(failure: Failure) -> dict[str, object]:
    return {
        "generation": failure.generation,
        "reason": failure.reason,
        "message": failure.message,
        "log_tail": list(failure.log_tail),
    }
