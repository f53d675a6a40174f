"""Removes deleted projects and components once nobody holds them. One task per server process."""

from __future__ import annotations

import asyncio
import contextlib

from minuet.control.catalog import service, store
from minuet.infra import telemetry
from minuet.infra.database import Database
from minuet.infra.outbox import Bus
from minuet.kernel.errors import MinuetError

RESYNC_SECONDS = 10.0
"""How long a deletion may wait when its event was missed."""

HOLD_RELEASED = "hold.released"
"""Event of whoever released a hold; its subject is the row's id."""

_log = telemetry.logger(__name__)


async def run(database: Database, bus: Bus) -> None:
    """Collects after each event that may have freed something, and every few seconds; until cancelled."""
    kinds = (service.COMPONENT_DELETING, service.PROJECT_DELETING, HOLD_RELEASED)
    with bus.subscribe(*kinds) as events:
        while True:
            try:
                while await _is_work(database):
                    await database.run(service.collect)
            except MinuetError as error:
                _log.warning("collect_failed", code=error.code, detail=error.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESYNC_SECONDS):
                    await anext(aiter(events))


async def _is_work(database: Database) -> bool:
    """Looks without writing, so that a quiet system has no transactions that could fail others."""
    async with database.reading() as tx:
        return bool(await store.removable_components(tx) or await store.removable_projects(tx))
