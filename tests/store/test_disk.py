"""What a full or failing disk may do: refuse, and never lose what was acknowledged."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

FULL = """
import asyncio, os, subprocess, sys
import sqlalchemy as sa
from minuet.infra.database import Database
from minuet.infra.outbox import CURSORS
from minuet.kernel.errors import Unavailable

async def main(directory):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", directory], check=True)
    database = Database.open(f"sqlite:///{directory}/full.db")
    async with database.writers.begin() as connection:
        await connection.run_sync(CURSORS.create)
    kept = 0
    try:
        while True:
            async with database.transaction() as tx:
                await tx.execute(sa.insert(CURSORS).values(name=f"{kept}-" + "x" * 2000, position=kept))
            kept += 1
    except Unavailable as error:
        print(error.code)
    async with database.reading() as tx:
        row = await tx.one(sa.select(sa.func.count()).select_from(CURSORS))
        print(row[0] == kept)
    subprocess.run(["mount", "-o", "remount,size=4m", directory], check=True)
    async with database.transaction() as tx:
        await tx.execute(sa.insert(CURSORS).values(name="after", position=1))
    async with database.reading() as tx:
        print((await tx.one(sa.text("pragma integrity_check")))[0])

asyncio.run(main(sys.argv[1]))
"""

FAILING = """
import asyncio, sys
import sqlalchemy as sa
from minuet.infra.database import Database
from minuet.infra.outbox import CURSORS
from minuet.kernel.errors import Unavailable

async def main(url):
    database = Database.open(url)
    database.failed.append(lambda: print("failed", flush=True))
    number = 0
    while number < 40:
        try:
            async with database.transaction() as tx:
                await tx.execute(sa.insert(CURSORS).values(name=str(number), position=number))
            print(number, flush=True)
        except Unavailable as error:
            print(error.code, flush=True)
        number += 1

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounts a small file system")
def test_a_full_disk_refuses_writes_keeps_reads_and_recovers_without_a_restart(tmp_path: Path) -> None:
    script = tmp_path / "full.py"
    script.write_text(FULL)
    directory = tmp_path / "small"
    directory.mkdir()
    command = ["unshare", "--mount", sys.executable, script, directory]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == ["DiskFull", "True", "ok"], done.stderr


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to make a disk fail")
@pytest.mark.parametrize("number", [1, 3, 5, 9])  # the second is of the directory, whose result SQLite ignores
def test_after_a_failed_sync_nothing_is_acknowledged_any_more(tmp_path: Path, number: int) -> None:
    path = tmp_path / "failing.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE outbox_cursor (name TEXT PRIMARY KEY, position INTEGER)")
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    inject = f"inject=fsync,fdatasync:error=EIO:when={number}"
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", inject]
    arguments = [*command, sys.executable, str(script), f"sqlite:///{path}"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    said = done.stdout.split()
    assert "failed" in said, done.stderr
    failure = said.index("failed")
    assert not [word for word in said[failure:] if word.isdecimal()]
    with sqlite3.connect(path) as connection:
        found = {row[0] for row in connection.execute("SELECT name FROM outbox_cursor")}
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert {word for word in said if word.isdecimal()} <= found
