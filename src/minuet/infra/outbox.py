"""Events that leave after the commit: a table, and the bus that reads it.

`Transaction.emit` writes rows in the transaction that made them true. The bus
of each server process reads the table in order, woken at once by commits of its
own process and every second for those of other replicas, and hands the events
to subscribers. A subscriber with a name keeps its place in the database: after
a crash it sees again whatever it had not finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator

import sqlalchemy as sa

from minuet.infra.database import Database, Transaction
from minuet.infra.events import TABLE, Event
from minuet.infra.tables import BigNumber, metadata
from minuet.kernel.clock import Clock, SystemClock
from minuet.kernel.errors import MinuetError

CURSORS = sa.Table(
    "outbox_cursor",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("position", BigNumber, nullable=False),
)

POLL_SECONDS = 1.0
"""How late news of another replica may be."""

GAP_SECONDS = 30.0
"""A hole in the ids older than this is a rollback, not a commit still to come (see `STATEMENT_SECONDS`)."""

KEEP = datetime.timedelta(days=3)
"""Events older than this are pruned, even if a named subscriber has not come for them."""

BATCH = 500
QUEUE_LIMIT = 10_000
"""Events one subscriber may be behind before the oldest are dropped and counted."""


class Subscription:
    """An unending iterator over events; `dropped` counts those lost because nobody read them."""

    def __init__(self, kinds: Collection[str]) -> None:
        self.kinds = frozenset(kinds)
        self.dropped = 0
        self._queue: deque[Event] = deque(maxlen=QUEUE_LIMIT)
        self._ready = asyncio.Event()

    def offer(self, event: Event) -> None:
        if self.kinds and event.kind not in self.kinds:
            return
        if len(self._queue) == QUEUE_LIMIT:
            self.dropped += 1
        self._queue.append(event)
        self._ready.set()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            self._ready.clear()
            await self._ready.wait()
        return self._queue.popleft()


class Bus:
    """Reads the outbox in this process and feeds its subscribers; `run` is its task."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._subscriptions: set[Subscription] = set()
        self._wake = asyncio.Event()
        self._position: _Position | None = None
        database.committed.append(self._wake.set)

    @contextlib.contextmanager
    def subscribe(self, *kinds: str) -> Iterator[Subscription]:
        """Yields the events of these kinds (all, without any) from now on."""
        subscription = Subscription(kinds)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    async def start(self) -> _Position:
        """Fixes where "now" is; subscribers that come later miss nothing committed after this."""
        if self._position is None:
            async with self._database.reading() as transaction:
                self._position = _Position(await last_id(transaction))
        return self._position

    async def run(self) -> None:
        """Delivers until cancelled; a database that is away is waited for."""
        while True:
            self._wake.clear()
            with contextlib.suppress(MinuetError):
                await self.deliver()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), POLL_SECONDS)

    async def deliver(self) -> None:
        """Hands over everything that was committed since the last time."""
        position = await self.start()
        async with self._database.reading() as transaction:
            events = await position.news(transaction, self._clock.monotonic())
        for event in events:
            for subscription in tuple(self._subscriptions):
                subscription.offer(event)


class _Position:
    """Everything up to `floor` was seen, and `seen` above it.

    Ids are given out at insert but become visible at commit, so on PostgreSQL
    a lower one may appear after a higher one; holes are asked for again until
    they are too old to be filled.
    """

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self._seen: set[int] = set()
        self._holes: dict[int, float] = {}

    async def news(self, transaction: Transaction, now: float) -> list[Event]:
        found: list[Event] = []
        after = self.floor
        while True:
            page = await events_after(transaction, after)
            found += [event for event in page if event.id not in self._seen]
            if len(page) < BATCH:
                break
            after = page[-1].id
        self._seen.update(event.id for event in found)
        self._advance(now)
        return found

    def _advance(self, now: float) -> None:
        highest = max(self._seen, default=self.floor)
        while self.floor < highest:
            following = self.floor + 1
            if following in self._seen:
                self._seen.discard(following)
            elif now - self._holes.setdefault(following, now) < GAP_SECONDS:
                for hole in range(following, min(highest, following + BATCH)):
                    if hole not in self._seen:
                        self._holes.setdefault(hole, now)
                return
            self._holes.pop(following, None)
            self.floor = following


async def events_after(transaction: Transaction, position: int) -> list[Event]:
    """Returns the next events by id, at most `BATCH` of them."""
    query = sa.select(TABLE).where(TABLE.c.id > position).order_by(TABLE.c.id).limit(BATCH)
    return [
        Event(row.kind, row.organization_id, row.subject, json.loads(row.data), row.id)
        for row in await transaction.all(query)
    ]


async def last_id(transaction: Transaction) -> int:
    """Returns the highest id there is."""
    row = await transaction.one(sa.select(sa.func.max(TABLE.c.id)))
    return int(row[0]) if row is not None and row[0] is not None else 0  # type: ignore[call-overload]


async def place_of(transaction: Transaction, name: str) -> int:
    """Returns how far the named subscriber has finished; a new one starts at the beginning of what is kept."""
    row = await transaction.one(sa.select(CURSORS.c.position).where(CURSORS.c.name == name))
    return int(row.position) if row is not None else 0


async def keep_place(transaction: Transaction, name: str, position: int) -> None:
    """Records that the named subscriber has finished everything up to `position`, with what it did about it."""
    changed = await transaction.execute(sa.update(CURSORS).where(CURSORS.c.name == name).values(position=position))
    if changed.rowcount == 0:
        await transaction.execute(sa.insert(CURSORS).values(name=name, position=position))


async def prune(transaction: Transaction, now: datetime.datetime) -> int:
    """Deletes events that nobody will come for any more; returns how many."""
    return (await transaction.execute(sa.delete(TABLE).where(TABLE.c.created_at < now - KEEP))).rowcount
