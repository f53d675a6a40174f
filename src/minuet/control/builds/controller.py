"""Gives builds of lost builders back to the queue. One task per server process; replicas may run it at once."""

from __future__ import annotations

import asyncio

from minuet.control.builds import leases, store
from minuet.infra import telemetry
from minuet.infra.database import Database
from minuet.kernel.clock import Clock
from minuet.kernel.errors import MinuetError

CHECK_SECONDS = 2.0
"""How late a lapsed lease is noticed."""

_log = telemetry.logger(__name__)


async def run(database: Database, clock: Clock) -> None:
    """Looks for lapsed leases until cancelled."""
    while True:
        try:
            async with database.reading() as tx:
                lapsed = await store.with_lapsed_lease(tx, clock.now())
            if lapsed:
                count = await database.run(lambda tx: leases.expire(tx, clock.now()))
                _log.warning("builders_lost", builds=count)
        except MinuetError as error:
            _log.warning("expire_failed", code=error.code, detail=error.message)
        await asyncio.sleep(CHECK_SECONDS)
