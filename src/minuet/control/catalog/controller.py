"""Removes deleted projects and components once nobody holds them. One task per server process."""

from __future__ import annotations

import asyncio
import contextlib

from minuet.control.catalog import service
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
                while await database.run(service.collect):
                    pass
            except MinuetError as error:
                _log.warning("collect_failed", code=error.code, detail=error.message)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(anext(aiter(events)), RESYNC_SECONDS)
