"""A control plane served from the test's own event loop, so that a test can act as the slices above do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn

from minuet.infra.database import Database
from minuet.kernel.clock import SystemClock
from minuet.protocol.desired import Artifact, Layer, Workload
from minuet.server import api, first_start, keys, migrations, wiring
from minuet.server.settings import Listen, ServerSettings, Storage


@contextlib.asynccontextmanager
async def served(data: Path, url: str, port: int) -> AsyncIterator[wiring.ControlPlane]:
    """Yields a control plane that answers on `port`."""
    settings = ServerSettings(data=data, listen=Listen(port=port), storage=Storage(url=url))
    data.mkdir(parents=True, exist_ok=True)
    database = Database.open(url, connections=8)
    await migrations.upgrade(database, backups=data / "backups")
    own_keys = await keys.open_(data, database)
    await first_start.prepare(settings, database, SystemClock())
    plane = wiring.assemble(settings, database, own_keys)
    config = uvicorn.Config(
        api.application(plane), port=port, ws="websockets-sansio", log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
        if serving.done():
            serving.result()
    try:
        yield plane
    finally:
        server.should_exit = True
        await serving
        await database.close()


def workload(key: str, generation: int = 1, **changes: object) -> Workload:
    """Returns a complete workload document."""
    values: dict[str, object] = {
        "key": key,
        "organization": "default",
        "project": "shop",
        "component": "web",
        "environment": "development",
        "generation": generation,
        "deployment": f"dep-{generation}",
        "release": "20261124-1",
        "artifact": Artifact(
            digest="sha256:" + "0" * 64,
            manifest="{}",
            signature="c2ln",
            public_key="a2V5",
            store="http://127.0.0.1:8401",
            ticket="t.t",
            layers=(Layer(digest="sha256:" + "1" * 64, size=1, target="/app"),),
        ),
        "command": "./run",
        "ports": (8080,),
    }
    return Workload.model_validate(values | changes)
