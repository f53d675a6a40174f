"""What a transaction promises, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from minuet.infra import outbox
from minuet.infra.database import Database, Transaction, TransactionConflict
from minuet.infra.events import Event
from minuet.infra.outbox import CURSORS, Bus
from minuet.kernel.errors import Invalid, Unavailable

WRITER = """
import asyncio, sys
import sqlalchemy as sa
from minuet.infra.database import Database
from minuet.infra.outbox import CURSORS

async def main(url):
    database = Database.open(url)
    number = 0
    while True:
        async with database.transaction() as tx:
            for part in ("a", "b", "c"):
                await tx.execute(sa.insert(CURSORS).values(name=f"{number}{part}", position=number))
        print(number, flush=True)
        number += 1

asyncio.run(main(sys.argv[1]))
"""


async def count(database: Database) -> int:
    async with database.reading() as tx:
        row = await tx.one(sa.select(sa.func.count()).select_from(CURSORS))
    assert row is not None
    return int(row[0])


async def test_a_transaction_commits_at_its_end(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute(sa.insert(CURSORS).values(name="one", position=1))
    assert await count(database) == 1


async def test_an_error_rolls_everything_back(database: Database) -> None:
    async def fail(tx: Transaction) -> None:
        await tx.execute(sa.insert(CURSORS).values(name="one", position=1))
        tx.emit(Event("never", None, "x"))
        raise Invalid("no")

    with pytest.raises(Invalid):
        await database.run(fail)
    assert await count(database) == 0
    async with database.reading() as tx:
        assert await outbox.events_after(tx, 0) == []


async def test_a_reading_transaction_cannot_write(database: Database) -> None:
    with pytest.raises(Unavailable):
        async with database.reading() as tx:
            await tx.execute(sa.insert(CURSORS).values(name="one", position=1))
    assert await count(database) == 0


async def test_many_writers_that_read_first_lose_no_update(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute(sa.insert(CURSORS).values(name="counter", position=0))

    async def increase(tx: Transaction) -> None:
        row = await tx.one(sa.select(CURSORS.c.position).where(CURSORS.c.name == "counter"))
        assert row is not None
        await asyncio.sleep(0)
        await tx.execute(sa.update(CURSORS).where(CURSORS.c.name == "counter").values(position=row.position + 1))

    async def patient() -> None:
        while True:
            try:
                return await database.run(increase)
            except TransactionConflict:
                continue

    await asyncio.gather(*(patient() for _ in range(20)))
    async with database.reading() as tx:
        assert await outbox.place_of(tx, "counter") == 20


async def test_a_reader_sees_one_state_while_others_write(database: Database) -> None:
    async with database.reading() as tx:
        assert await outbox.place_of(tx, "one") == 0
        async with database.transaction() as writer:
            await writer.execute(sa.insert(CURSORS).values(name="one", position=7))
        assert await outbox.place_of(tx, "one") == 0


async def test_a_taken_name_is_an_integrity_error(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute(sa.insert(CURSORS).values(name="one", position=1))
    with pytest.raises(IntegrityError):
        async with database.transaction() as tx:
            await tx.execute(sa.insert(CURSORS).values(name="one", position=1))


async def test_foreign_keys_hold(database: Database) -> None:
    from minuet.control.planes.log import DOCUMENTS

    values = {"revision": 1, "is_removed": False, "size": 1, "content": "", "organization_id": "o"}
    with pytest.raises(IntegrityError):
        async with database.transaction() as tx:
            await tx.execute(sa.insert(DOCUMENTS).values(plane_id="none", key="k", **values))


async def test_events_reach_subscribers_after_the_commit_and_not_before(database: Database) -> None:
    bus = Bus(database)
    await bus.start()
    with bus.subscribe("made") as events:
        running = asyncio.create_task(bus.run())
        try:
            following = asyncio.ensure_future(anext(events))
            async with database.transaction() as tx:
                tx.emit(Event("made", "org", "thing", {"n": 1}))
                tx.emit(Event("other", None, "thing"))
                done, _ = await asyncio.wait({following}, timeout=0.3)
                assert not done
            event = await asyncio.wait_for(following, 5)
        finally:
            running.cancel()
    assert (event.kind, event.organization_id, event.subject, event.data) == ("made", "org", "thing", {"n": 1})


async def test_events_of_another_replica_arrive_by_polling(database: Database, database_url: str) -> None:
    other = Database.open(database_url)
    bus = Bus(database)
    await bus.start()
    with bus.subscribe() as events:
        running = asyncio.create_task(bus.run())
        try:
            async with other.transaction() as tx:
                tx.emit(Event("made", None, "elsewhere"))
            event = await asyncio.wait_for(anext(events), 5)
        finally:
            running.cancel()
            await other.close()
    assert event.subject == "elsewhere"


async def test_a_lower_id_that_commits_later_is_not_missed(database: Database, database_url: str) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has one writer, so ids commit in order")
    bus = Bus(database)
    await bus.start()
    with bus.subscribe() as events:
        async with database.transaction() as early:
            early.emit(Event("made", None, "early"))
            await early.flush_events()
            async with database.transaction() as late:
                late.emit(Event("made", None, "late"))
            await bus.deliver()
            assert (await anext(events)).subject == "late"
        await bus.deliver()
        assert (await asyncio.wait_for(anext(events), 5)).subject == "early"
        async with database.transaction() as tx:
            tx.emit(Event("made", None, "third"))
        await bus.deliver()
        assert (await asyncio.wait_for(anext(events), 5)).subject == "third"


async def test_a_place_is_kept_with_what_was_done_about_the_event(database: Database) -> None:
    async with database.transaction() as tx:
        tx.emit(Event("made", None, "one"))

    async def fail(tx: Transaction) -> None:
        [event] = await outbox.events_after(tx, await outbox.place_of(tx, "reader"))
        await outbox.keep_place(tx, "reader", event.id)
        raise Invalid("the work failed")

    with pytest.raises(Invalid):
        await database.run(fail)
    async with database.transaction() as tx:
        [event] = await outbox.events_after(tx, await outbox.place_of(tx, "reader"))
        await outbox.keep_place(tx, "reader", event.id)
    async with database.reading() as tx:
        assert await outbox.events_after(tx, await outbox.place_of(tx, "reader")) == []


@pytest.mark.parametrize("round_", range(5))
async def test_a_writer_killed_at_any_moment_loses_no_acknowledged_write(
    database: Database, database_url: str, tmp_path: Path, round_: int
) -> None:
    script = tmp_path / "writer.py"
    script.write_text(WRITER)
    acknowledged = tmp_path / "acknowledged"
    with acknowledged.open("wb") as out:
        writer = subprocess.Popen([sys.executable, script, database_url], stdout=out)
        try:
            async with asyncio.timeout(30):
                while len(acknowledged.read_bytes().splitlines()) < 3 + 2 * round_:
                    await asyncio.sleep(0.003 * (round_ + 1))
        finally:
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait(10)
    promised = {int(line) for line in acknowledged.read_bytes().decode().splitlines()}
    async with database.reading() as tx:
        names = {row.name for row in await tx.all(sa.select(CURSORS.c.name))}
    assert {f"{number}{part}" for number in promised for part in "abc"} <= names
    numbers = {name[:-1] for name in names}
    assert names == {f"{number}{part}" for number in numbers for part in "abc"}
    assert len(numbers) <= len(promised) + 1
    async with database.transaction() as tx:
        await tx.execute(sa.insert(CURSORS).values(name="after", position=1))


async def test_a_database_that_is_held_is_unavailable_and_not_a_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    from minuet.infra import database as module

    monkeypatch.setattr(module, "BUSY_SECONDS", 0.2)
    monkeypatch.setattr(module, "_SQLITE_PRAGMAS", (*module._SQLITE_PRAGMAS, "PRAGMA busy_timeout=200"))
    database = Database.open(f"sqlite:///{tmp_path / 'held.db'}")
    holder = sqlite3.connect(tmp_path / "held.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable):
        async with database.transaction():
            pass
    holder.execute("ROLLBACK")
    async with database.transaction():
        pass
    holder.close()
    await database.close()


@pytest.mark.parametrize("value", ["a\x00b", "a\ud800b", 2**70])
async def test_a_value_that_cannot_be_stored_is_the_callers_mistake(database: Database, value: object) -> None:
    if database.is_sqlite and value == "a\x00b":
        pytest.skip("SQLite keeps NUL")
    values = {"name": value, "position": 1} if isinstance(value, str) else {"name": "a", "position": value}
    statement = sa.insert(CURSORS).values(**values)
    with pytest.raises(Invalid):
        async with database.transaction() as tx:
            await tx.execute(statement)
