"""Wires the builder and runs it: `minuet builder --settings FILE`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import uvicorn

from minuet.builders.git_http import GitFrontDoor
from minuet.builders.http import Doors
from minuet.builders.push import Pusher
from minuet.builders.repositories import Repositories
from minuet.builders.settings import BuilderSettings
from minuet.builders.store import Store
from minuet.builders.worker import Worker
from minuet.infra import settings as settings_files
from minuet.infra import telemetry
from minuet.kernel.errors import MinuetError, invalid_field
from minuet.launcher.client import Launcher


def main(settings_file: Path) -> int:
    """Runs until SIGTERM or SIGINT; returns 1, with a line on stderr, when it cannot start."""
    try:
        run(settings_file)
    except MinuetError as error:
        hint = f" ({error.hint})" if error.hint else ""
        sys.stderr.write(f"builder: {error.message}{hint}\n")
        return 1
    return 0


def run(path: Path) -> None:
    """Runs until SIGTERM or SIGINT; raises the error family when it cannot start."""
    telemetry.configure("builder")
    os.umask(0o007)
    settings = settings_files.load(BuilderSettings, path)
    if settings.certificate is None and settings.address not in ("127.0.0.1", "::1", "localhost"):
        raise invalid_field("certificate", "is required to listen beyond loopback", given=settings.address)
    asyncio.run(_serve(settings))


async def _serve(settings: BuilderSettings) -> None:
    launcher = Launcher(settings.launcher)
    store = Store(settings.store)
    repositories = Repositories(settings.repositories, launcher)
    worker = Worker(settings, launcher, store, repositories)
    pusher = Pusher(settings.server, settings.fingerprint, launcher)
    git = GitFrontDoor(repositories, launcher, pusher, settings.directory / "exchange")
    doors = Doors(settings, store, git, lambda: worker.signing_key)
    server = uvicorn.Server(
        uvicorn.Config(
            doors.application(),
            host=settings.address,
            port=settings.port,
            log_config=None,
            access_log=False,
            lifespan="off",
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.certificate_key,
            timeout_graceful_shutdown=5,
        )
    )
    working = asyncio.create_task(worker.run())
    await server.serve()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
