"""The schema: up on both databases, equal to the tables in code, refused when newer, backed up before."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from minuet.infra.database import Database
from minuet.infra.tables import metadata
from minuet.kernel.errors import Conflict, Unavailable
from minuet.server import migrations


async def test_the_chain_makes_exactly_the_tables_in_code(database: Database) -> None:
    def differences(connection: sa.Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    async with database.writers.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_upgrading_twice_changes_nothing(database: Database, tmp_path: Path) -> None:
    await migrations.upgrade(database, backups=tmp_path / "backups")


async def test_the_chain_goes_down_again(database: Database) -> None:
    def down(connection: sa.Connection) -> set[str]:
        config = migrations._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        return set(sa.inspect(connection).get_table_names())

    async with database.writers.begin() as connection:
        assert await connection.run_sync(down) <= {"alembic_version", "sqlite_sequence"}


async def test_a_newer_schema_is_refused_by_name(database: Database, tmp_path: Path) -> None:
    async with database.transaction() as tx:
        await tx.execute(sa.text("update alembic_version set version_num = '9999'"))
    with pytest.raises(Conflict, match="9999") as caught:
        await migrations.upgrade(database, backups=tmp_path / "backups")
    assert caught.value.code == "SchemaTooNew"


async def test_replicas_that_start_together_migrate_once(empty: Database, database_url: str, tmp_path: Path) -> None:
    import asyncio

    others = [Database.open(database_url) for _ in range(3)]
    await asyncio.gather(*(migrations.upgrade(item, backups=tmp_path / "backups") for item in (empty, *others)))
    for other in others:
        await other.close()
    async with empty.reading() as tx:
        assert len(await tx.all(sa.text("select * from alembic_version"))) == 1


def test_a_backup_beside_a_writer_is_whole(tmp_path: Path) -> None:
    source = tmp_path / "minuet.db"
    writer = sqlite3.connect(source, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE t (n)")
    writer.execute("INSERT INTO t VALUES (1)")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO t VALUES (2)")
    for number in range(8):
        made = migrations.back_up(source, tmp_path / "backups", f"r{number}")
    copy = sqlite3.connect(made)
    assert copy.execute("SELECT n FROM t").fetchall() == [(1,)]
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(list((tmp_path / "backups").glob("*.db"))) == migrations.KEEP_BACKUPS
    assert made.stat().st_mode & 0o077 == 0


async def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "minuet.db"
    database = Database.open(f"sqlite:///{path}")
    await migrations.upgrade(database, backups=tmp_path / "backups")
    await migrations.check_file(database)
    await database.close()
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 3 + 200] = b"\xff" * 200
    path.write_bytes(content)
    damaged = Database.open(f"sqlite:///{path}")
    with pytest.raises(Unavailable) as caught:
        await migrations.check_file(damaged)
    assert caught.value.code == "DatabaseCorrupt"
    await damaged.close()
