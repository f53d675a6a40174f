"""Wires the builder and runs it: `python -m minuet builder --settings FILE`."""

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
from minuet.infra import certificates, telemetry
from minuet.infra import settings as settings_files
from minuet.infra.certificates import Certificate
from minuet.kernel.errors import MinuetError
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
    asyncio.run(_serve(settings))


async def _serve(settings: BuilderSettings) -> None:
    certificate = _certificate(settings)
    launcher = Launcher(settings.launcher)
    store = Store(settings.store)
    repositories = Repositories(settings.repositories, launcher)
    worker = Worker(settings, launcher, store, repositories, certificate.fingerprint if certificate else None)
    pusher = Pusher(settings.server, settings.fingerprint, launcher)
    git = GitFrontDoor(repositories, launcher, pusher, settings.directory / "exchange")
    await asyncio.to_thread(git.sweep)
    doors = Doors(settings, store, git, lambda: worker.signing_key)
    server = uvicorn.Server(
        uvicorn.Config(
            doors.application(),
            host=settings.address,
            port=settings.port,
            log_config=None,
            access_log=False,
            lifespan="off",
            ssl_certfile=certificate.certificate if certificate else None,
            ssl_keyfile=certificate.key if certificate else None,
            timeout_graceful_shutdown=5,
        )
    )
    tasks = [asyncio.create_task(each) for each in (worker.run(), worker.keep_tidy(), worker.keep_offers())]
    await server.serve()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _certificate(settings: BuilderSettings) -> Certificate | None:
    """The configured certificate, one of our own beyond loopback, none on it."""
    if settings.certificate is not None and settings.certificate_key is not None:
        return certificates.read(settings.certificate, settings.certificate_key)
    return None if settings.is_loopback else certificates.own(settings.directory / "tls", settings.address)
