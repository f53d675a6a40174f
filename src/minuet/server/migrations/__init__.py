"""The schema of the database: one Alembic chain for SQLite and PostgreSQL, run at each start of the server.

All steps of an upgrade are one transaction on both databases, so that a crash
in the middle leaves the schema that was there.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import sqlite3
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from minuet.infra import telemetry
from minuet.infra.database import Database, translated
from minuet.kernel.errors import Conflict, Unavailable

KEEP_BACKUPS = 5

_LOCK = 0x6D696E756574
"""The advisory lock of PostgreSQL under which one replica migrates and the others wait."""

_log = telemetry.logger(__name__)


async def upgrade(database: Database, *, backups: Path) -> None:
    """Brings the schema to this version; raises `Conflict` (`SchemaTooNew`) for one of a newer Minuet."""
    script = ScriptDirectory.from_config(_config())
    head = script.get_current_head()
    current = await _current(database)
    if current == head:
        return
    known = {revision.revision for revision in script.walk_revisions()}
    if current is not None and current not in known:
        raise Conflict(
            f"the database has the schema {current}, which this version of Minuet does not know",
            code="SchemaTooNew",
            hint="run the version of Minuet that made it, or restore a backup",
        )
    if current is not None and database.is_sqlite:
        await asyncio.to_thread(back_up, _path(database), backups, current)
    with translated():
        await _run(database)
    _log.info("schema_upgraded", before=current, now=head)


async def check_file(database: Database) -> None:
    """Raises `Unavailable` (`DatabaseCorrupt`) if a SQLite file is damaged."""
    if not database.is_sqlite or not _path(database).exists():
        return
    try:
        async with database.readers.connect() as connection:
            result = (await connection.execute(sa.text("PRAGMA quick_check(1)"))).scalar_one()
    except DBAPIError as error:
        result = str(error.orig)
    if result != "ok":
        raise Unavailable(
            f"the database file is damaged: {result}", code="DatabaseCorrupt", hint="restore it from a backup"
        )


def back_up(source: Path, directory: Path, revision: str) -> Path:
    """Copies a SQLite file by the backup API, which is safe beside writers; keeps the newest few."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
    target = directory / f"{stamp}-{revision}.db"
    partial = target.with_suffix(".partial")
    with contextlib.closing(sqlite3.connect(source)) as read, contextlib.closing(sqlite3.connect(partial)) as write:
        read.backup(write)
    partial.chmod(0o600)
    partial.replace(target)
    for old in sorted(directory.glob("*.db"))[:-KEEP_BACKUPS]:
        old.unlink()
    return target


async def _current(database: Database) -> str | None:
    with translated():
        async with database.writers.connect() as connection:
            return await connection.run_sync(lambda inner: MigrationContext.configure(inner).get_current_revision())


async def _run(database: Database) -> None:
    async with database.writers.connect() as connection:
        if not database.is_sqlite:
            # The lock is waited for in its own snapshot, or the schema of before the wait would be seen.
            await connection.execution_options(isolation_level="READ COMMITTED")
        async with connection.begin():
            if not database.is_sqlite:
                await connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
                await connection.execute(sa.text("SET LOCAL lock_timeout = 0"))
                await connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            await connection.run_sync(_upgrade)


def _upgrade(connection: sa.Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    return config


def _path(database: Database) -> Path:
    return Path(str(database.writers.url.database))
