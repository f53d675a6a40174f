"""Which replica's controllers act: one leader per name, with a fencing number.

The holder counts a beat up; whoever sees the same beat for a whole term, by its
own monotonic clock, takes over with a higher fence. No wall clocks are compared.
The lease saves double work and orders nothing: one who was asleep and does not
know that it was replaced may still write for a moment. Work whose order matters
calls `Term.check` in each of its writing transactions; the controllers need not,
because they compare what is with what should be in serializable transactions.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import sqlalchemy as sa

from minuet.infra import telemetry
from minuet.infra.database import Database, Transaction
from minuet.infra.tables import BigNumber, metadata
from minuet.kernel.clock import Clock, SystemClock
from minuet.kernel.errors import Conflict, MinuetError
from minuet.kernel.ids import new_id

TABLE = sa.Table(
    "lease",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("holder", sa.String(40), nullable=False),
    sa.Column("fence", BigNumber, nullable=False),
    sa.Column("beat", BigNumber, nullable=False),
)

TERM_SECONDS = 10.0
"""How long a silent holder keeps the lease; three times the worst pause that was measured."""

BEAT_SECONDS = 3.0

_log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True)
class Term:
    """One uninterrupted time of leading."""

    name: str
    holder: str
    fence: int

    async def check(self, tx: Transaction) -> None:
        """Raises `Conflict` (`LeaseLost`) if somebody else leads by now; call it in each writing transaction."""
        held = (TABLE.c.name == self.name, TABLE.c.holder == self.holder, TABLE.c.fence == self.fence)
        if await tx.one(sa.select(TABLE.c.fence).where(*held)) is None:
            raise Conflict(f"another replica leads {self.name}", code="LeaseLost")


@dataclass(frozen=True, slots=True)
class _Seen:
    holder: str
    beat: int
    since: float


class Leadership:
    """One process's candidacy for one name.

    `alone` says that no other process can have the database (SQLite with its
    lock file), so that a restart need not wait for the term of the one before.
    """

    def __init__(self, database: Database, name: str, *, alone: bool, clock: Clock | None = None) -> None:
        self._database = database
        self._name = name
        self._alone = alone
        self._clock = clock or SystemClock()
        self._holder = new_id("ldr")
        self._seen: _Seen | None = None

    async def lead(self, work: Callable[[Term], Awaitable[None]]) -> None:
        """Runs `work` whenever this process leads, and cancels it when it no longer does; until cancelled."""
        while True:
            term = await self._try_to_win()
            if term is None:
                await asyncio.sleep(BEAT_SECONDS)
                continue
            _log.info("leading", lease=self._name, fence=term.fence)
            await self._serve(term, work)

    async def _try_to_win(self) -> Term | None:
        try:
            return await self._database.run(self._win)
        except MinuetError:
            return None

    async def _win(self, tx: Transaction) -> Term | None:
        row = await tx.one(sa.select(TABLE).where(TABLE.c.name == self._name))
        if row is None:
            await tx.execute(sa.insert(TABLE).values(name=self._name, holder=self._holder, fence=1, beat=0))
            return Term(self._name, self._holder, 1)
        if not (self._alone or row.holder in ("", self._holder) or self._is_silent(row.holder, row.beat)):
            return None
        taken = sa.update(TABLE).where(TABLE.c.name == self._name, TABLE.c.fence == row.fence)
        result = await tx.execute(taken.values(holder=self._holder, fence=row.fence + 1, beat=0))
        return Term(self._name, self._holder, row.fence + 1) if result.rowcount == 1 else None

    def _is_silent(self, holder: str, beat: int) -> bool:
        now = self._clock.monotonic()
        if self._seen is None or (self._seen.holder, self._seen.beat) != (holder, beat):
            self._seen = _Seen(holder, beat, now)
        return now - self._seen.since >= TERM_SECONDS

    async def _serve(self, term: Term, work: Callable[[Term], Awaitable[None]]) -> None:
        working = asyncio.ensure_future(work(term))
        beating = asyncio.ensure_future(self._beat(term))
        try:
            await asyncio.wait({working, beating}, return_when=asyncio.FIRST_COMPLETED)
            if working.done() and not working.cancelled() and working.exception() is not None:
                _log.error("leader_failed", lease=self._name, exc_info=working.exception())
                await asyncio.sleep(BEAT_SECONDS)
        finally:
            for job in (working, beating):
                job.cancel()
            await asyncio.gather(working, beating, return_exceptions=True)
            with contextlib.suppress(MinuetError):
                await self._database.run(lambda tx: _resign(tx, term))

    async def _beat(self, term: Term) -> None:
        """Returns when the lease is lost, or could not be renewed for so long that it may be."""
        renewed = self._clock.monotonic()
        while self._clock.monotonic() - renewed < TERM_SECONDS - BEAT_SECONDS:
            await asyncio.sleep(BEAT_SECONDS)
            with contextlib.suppress(MinuetError):
                if not await self._database.run(lambda tx: _renew(tx, term)):
                    return
                renewed = self._clock.monotonic()


async def _renew(tx: Transaction, term: Term) -> bool:
    held = (TABLE.c.name == term.name, TABLE.c.holder == term.holder, TABLE.c.fence == term.fence)
    return (await tx.execute(sa.update(TABLE).where(*held).values(beat=TABLE.c.beat + 1))).rowcount == 1


async def _resign(tx: Transaction, term: Term) -> None:
    held = (TABLE.c.name == term.name, TABLE.c.holder == term.holder, TABLE.c.fence == term.fence)
    await tx.execute(sa.update(TABLE).where(*held).values(holder=""))
