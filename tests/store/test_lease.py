"""One leader at a time, and a fence against one who does not know yet that it is none."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from minuet.infra import lease
from minuet.infra.database import Database
from minuet.infra.lease import Leadership, Term
from minuet.kernel.errors import Conflict


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "TERM_SECONDS", 0.5)
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)


class Worker:
    """Counts its terms and keeps the last."""

    def __init__(self) -> None:
        self.terms: list[Term] = []
        self.leading = asyncio.Event()

    async def __call__(self, term: Term) -> None:
        self.terms.append(term)
        self.leading.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.leading.clear()


async def test_one_of_several_leads_and_another_follows_when_it_resigns(database: Database) -> None:
    workers = [Worker(), Worker()]
    jobs = [asyncio.create_task(Leadership(database, "x", alone=False).lead(worker)) for worker in workers]
    waits = [asyncio.create_task(worker.leading.wait()) for worker in workers]
    await asyncio.wait(waits, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(1)
    assert [worker.leading.is_set() for worker in workers].count(True) == 1
    first = 0 if workers[0].leading.is_set() else 1
    jobs[first].cancel()
    await asyncio.wait_for(workers[1 - first].leading.wait(), 10)
    assert workers[1 - first].terms[0].fence > workers[first].terms[0].fence
    for job in (*jobs, *waits):
        job.cancel()
    await asyncio.gather(*jobs, *waits, return_exceptions=True)


async def test_a_silent_leader_is_replaced_and_fenced(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute(sa.insert(lease.TABLE).values(name="x", holder="dead", fence=7, beat=3))
    old = Term("x", "dead", 7)
    async with database.reading() as tx:
        await old.check(tx)
    worker = Worker()
    started = asyncio.get_running_loop().time()
    job = asyncio.create_task(Leadership(database, "x", alone=False).lead(worker))
    await asyncio.wait_for(worker.leading.wait(), 10)
    assert asyncio.get_running_loop().time() - started >= 0.5
    assert worker.terms[0].fence == 8
    async with database.reading() as tx:
        await worker.terms[0].check(tx)
        with pytest.raises(Conflict) as caught:
            await old.check(tx)
    assert caught.value.code == "LeaseLost"
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)


async def test_whoever_is_alone_does_not_wait_for_a_dead_one(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute(sa.insert(lease.TABLE).values(name="x", holder="dead", fence=7, beat=3))
    worker = Worker()
    job = asyncio.create_task(Leadership(database, "x", alone=True).lead(worker))
    await asyncio.wait_for(worker.leading.wait(), 0.4)
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)


async def test_a_leader_that_was_replaced_is_stopped(database: Database) -> None:
    worker = Worker()
    job = asyncio.create_task(Leadership(database, "x", alone=False).lead(worker))
    await asyncio.wait_for(worker.leading.wait(), 10)
    await database.run(lambda tx: tx.execute(sa.update(lease.TABLE).values(holder="usurper", fence=99)))
    async with asyncio.timeout(10):
        while worker.leading.is_set():
            await asyncio.sleep(0.01)
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)


async def test_work_that_fails_is_run_again_in_a_new_term(database: Database) -> None:
    terms: list[Term] = []
    again = asyncio.Event()

    async def work(term: Term) -> None:
        terms.append(term)
        if len(terms) < 2:
            raise RuntimeError("a defect")
        again.set()
        await asyncio.Event().wait()

    job = asyncio.create_task(Leadership(database, "x", alone=False).lead(work))
    await asyncio.wait_for(again.wait(), 10)
    assert terms[1].fence > terms[0].fence
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
