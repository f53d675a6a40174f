"""Gives builds of lost builders back to the queue. One task per server process; replicas may run it at once.

Silence is measured by this process's own monotonic clock from when it first saw
a lease as it is: a server that was away itself, or whose wall clock jumped,
gives each builder its whole time to be heard again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from minuet.control.builds import leases, store
from minuet.control.builds.model import LEASE_SECONDS, Lease
from minuet.infra import telemetry
from minuet.infra.database import Database
from minuet.kernel.clock import Clock
from minuet.kernel.errors import MinuetError

CHECK_SECONDS = 2.0
"""How late a lapsed lease is noticed."""

_log = telemetry.logger(__name__)


class Watch:
    """What leases were seen, and since when each was not renewed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[Lease, float] = {}

    def silent(self, held: Iterable[Lease]) -> frozenset[Lease]:
        """Returns those of the leases that were not renewed for `LEASE_SECONDS`; forgets all that are held no more."""
        now = self._clock.monotonic()
        self._since = {lease: self._since.get(lease, now) for lease in held}
        return frozenset(lease for lease, since in self._since.items() if now - since >= LEASE_SECONDS)


async def run(database: Database, clock: Clock) -> None:
    """Looks for builders that are silent until cancelled."""
    watch = Watch(clock)
    while True:
        try:
            async with database.reading() as tx:
                held = await store.held_leases(tx)
            silent = watch.silent(held)
            if silent:
                count = await database.run(lambda tx, silent=silent: leases.expire(tx, silent, clock.now()))  # type: ignore[misc]
                _log.warning("builders_lost", builds=count)
        except MinuetError as error:
            _log.warning("expire_failed", code=error.code, detail=error.message)
        await asyncio.sleep(CHECK_SECONDS)
