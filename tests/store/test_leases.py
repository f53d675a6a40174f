"""The queue of builds on both databases: fair, leased once, given back when a builder is silent."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import replace

import pytest

from minuet.control.builds import leases, service, store
from minuet.control.builds.controller import Watch
from minuet.control.builds.model import BUILDER_ALIVE, LEASE_SECONDS, MAX_QUEUED, BuildStatus, Heard, Lease
from minuet.infra.database import Database
from minuet.kernel.clock import SystemClock
from minuet.kernel.errors import Conflict, Exhausted
from minuet.protocol.building import Progress
from tests.given import rows

SILENT = datetime.timedelta(seconds=LEASE_SECONDS + 1)


async def test_builds_are_taken_in_turn_by_organization(database: Database) -> None:
    acme = await rows.world(database)
    globex = await rows.world(database, "globex", first=False)
    for number in range(3):
        await rows.queue(database, acme, rows.NOW + datetime.timedelta(seconds=number))
    await rows.queue(database, globex, rows.NOW + datetime.timedelta(seconds=9))
    taken = [await rows.take(database) for _ in range(5)]
    assert [order and order.organization for order in taken] == ["acme", "globex", "acme", "acme", None]


async def test_builders_that_ask_at_once_get_different_builds(database: Database) -> None:
    made = await rows.world(database)
    for _ in range(6):
        await rows.queue(database, made)

    async def take() -> str | None:
        order = await database.run(lambda tx: leases.take(tx, rows.BUILDER, rows.VAULT, rows.NOW))
        return order and order.build

    taken = await asyncio.gather(*(take() for _ in range(6)))
    assert None not in taken
    assert len(set(taken)) == 6


async def test_a_silent_builder_loses_its_build_and_the_third_time_it_fails(database: Database) -> None:
    made = await rows.world(database)
    build = await rows.queue(database, made)
    now = rows.NOW
    for _ in range(3):
        order = await rows.take(database, now)
        assert order is not None
        async with database.transaction() as tx:
            assert await leases.expire(tx, (), now) == 0
        now += SILENT
        async with database.transaction() as tx:
            assert await leases.expire(tx, await store.held_leases(tx), now) == 1
    async with database.reading() as tx:
        found = await store.by_id(tx, build.organization_id, build.id)
    assert found is not None
    assert (found.status, found.reason, found.attempts) == (BuildStatus.FAILED, "BuilderLost", 3)
    assert await rows.take(database, now) is None


async def test_progress_renews_a_lease(database: Database) -> None:
    made = await rows.world(database)
    await rows.queue(database, made)
    order = await rows.take(database)
    assert order is not None
    later = rows.NOW + datetime.timedelta(seconds=LEASE_SECONDS - 1)
    async with database.transaction() as tx:
        held = await store.held_leases(tx)
        await leases.progress(tx, rows.BUILDER, order.lease, Progress(), later)
        assert await leases.expire(tx, held, rows.NOW + SILENT) == 0, "the one that was silent is not the one now"
    with pytest.raises(Conflict, match="not held"):
        async with database.transaction() as tx:
            await leases.progress(tx, "tok_other", order.lease, Progress(), later)


async def test_a_build_that_was_cancelled_ends_when_its_builder_is_lost(database: Database) -> None:
    from minuet.control.builds import service

    made = await rows.world(database)
    build = await rows.queue(database, made)
    await rows.take(database)
    async with database.transaction() as tx:
        found = await store.by_id(tx, build.organization_id, build.id)
        assert found is not None
        await service.cancel_build(tx, found, rows.NOW)
        await leases.expire(tx, await store.held_leases(tx), rows.NOW + SILENT)
        found = await store.by_id(tx, build.organization_id, build.id)
    assert found is not None
    assert found.status is BuildStatus.CANCELLED


async def test_the_queue_of_an_organization_is_bounded(database: Database) -> None:
    made = await rows.world(database)
    for _ in range(MAX_QUEUED):
        await rows.queue(database, made)
    with pytest.raises(Exhausted):
        await rows.queue(database, made)


async def test_a_silent_builder_offers_nothing_and_a_waiting_build_says_since_when(database: Database) -> None:
    made = await rows.world(database)
    build = await rows.queue(database, made)
    later = rows.NOW + BUILDER_ALIVE
    async with database.reading() as tx:
        alive, silent = await service.heard(tx, rows.NOW), await service.heard(tx, later)
        offers = await service.offers(tx, rows.NOW), await service.offers(tx, later)
    assert [len(item) for item in offers] == [1, 0]
    assert build.conditions(alive)[0].message == "waits for a builder"
    assert build.conditions(silent)[0].message == (
        "waits for a builder; no builder heard of since 2026-11-24T12:00:00.000Z"
    )
    assert build.told(Heard(is_alive=False)) == "waits for a builder; no builder has registered yet"


class Monotonic(SystemClock):
    """A clock whose monotonic time a test moves; its wall clock jumps as it likes."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


def test_a_lease_is_silent_only_after_this_process_saw_it_unchanged_for_its_whole_time() -> None:
    clock = Monotonic()
    watch = Watch(clock)
    old = Lease("lea_1", "tok_1", "one", rows.NOW - datetime.timedelta(days=1))
    assert watch.silent([old]) == frozenset(), "a server that was away gives the builder its time"
    clock.seconds = LEASE_SECONDS - 1
    renewed = replace(old, until=rows.NOW)
    assert watch.silent([old]) == frozenset()
    assert watch.silent([renewed]) == frozenset()
    clock.seconds += LEASE_SECONDS - 1
    assert watch.silent([renewed]) == frozenset()
    clock.seconds += 1
    assert watch.silent([renewed]) == {renewed}
    assert watch.silent([]) == frozenset()
    assert watch.silent([renewed]) == frozenset(), "what was held by nobody in between is seen anew"
