"""Small recurring housekeeping of a server process: last uses of tokens, rows that nobody comes for any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from minuet.infra.database import Database, Transaction
from minuet.kernel.clock import Clock
from minuet.kernel.errors import MinuetError

FLUSH_SECONDS = 30.0
PRUNE_SECONDS = 600.0


class Janitor:
    """Runs beside the requests; a database that is away only delays it."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        flush: Callable[[], Awaitable[None]],
        prune: Sequence[Callable[[Transaction], Awaitable[None]]],
    ) -> None:
        self._database = database
        self._clock = clock
        self._flush = flush
        self._prune = tuple(prune)

    async def run(self) -> None:
        """Works until cancelled, and flushes a last time then."""
        pruned = self._clock.monotonic()
        try:
            while True:
                await asyncio.sleep(FLUSH_SECONDS)
                with contextlib.suppress(MinuetError):
                    await self._flush()
                if self._clock.monotonic() - pruned >= PRUNE_SECONDS:
                    pruned = self._clock.monotonic()
                    await self._prune_all()
        finally:
            with contextlib.suppress(MinuetError):
                await asyncio.shield(self._flush())

    async def _prune_all(self) -> None:
        for prune in self._prune:
            with contextlib.suppress(MinuetError):
                await self._database.run(prune)
