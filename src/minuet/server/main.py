"""The server process: `python -m minuet server --settings FILE`.

Refuses a second server on one SQLite file, checks and upgrades the schema,
makes what a first start needs, and serves until it is told to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from minuet.control.planes import store as planes
from minuet.infra import settings as settings_files
from minuet.infra import telemetry
from minuet.infra.database import Database
from minuet.kernel.clock import SystemClock
from minuet.kernel.errors import Conflict, MinuetError, Unavailable
from minuet.protocol.frames import MAX_FRAME_BYTES, PING_INTERVAL_SECONDS
from minuet.server import api, first_start, keys, migrations, wiring
from minuet.server.settings import ServerSettings

PONG_SECONDS = 20.0
"""With the interval of pings, a half-open link is noticed within 35 s."""

_log = telemetry.logger(__name__)


def main(path: Path) -> int:
    """Runs the server with a settings file; returns the exit code."""
    try:
        run(settings_files.load(ServerSettings, path))
    except MinuetError as error:
        hint = f" ({error.hint})" if error.hint else ""
        print(f"error: {error.message}{hint}", file=sys.stderr)  # noqa: T201 - before there is a log, people read this
        return 1
    return 0


def run(settings: ServerSettings) -> None:
    """Serves until SIGTERM or SIGINT; raises the error family if it cannot."""
    telemetry.configure("server", level=settings.log_level)
    os.umask(0o077)
    settings.data.mkdir(parents=True, exist_ok=True)
    with _alone(settings):
        asyncio.run(serve(settings))


async def serve(settings: ServerSettings) -> None:
    """Prepares and serves; the caller holds the lock of the data directory."""
    database = Database.open(settings.database_url, connections=settings.storage.connections)
    try:
        await migrations.check_file(database)
        await migrations.upgrade(database, backups=settings.data / "backups")
        own_keys = await keys.open_(settings.data, database)
        await first_start.prepare(settings, database, SystemClock())
        if database.is_sqlite:
            await database.run(lambda tx: planes.mark_all_disconnected(tx, SystemClock().now()))
        plane = wiring.assemble(settings, database, own_keys)
        server = _server(settings, plane)
        database.failed.append(server.give_up)
        await server.serve()
        if server.has_given_up:
            raise Unavailable("the disk of the database failed", code="StorageFailed", hint="check the disk")
    finally:
        await database.close()


def _server(settings: ServerSettings, plane: wiring.ControlPlane) -> _Server:
    certificate = keys.certificate(settings.data, settings.listen) if settings.wants_tls else None
    scheme = "http" if certificate is None else "https"
    fingerprint = None if certificate is None else certificate.fingerprint
    address = f"{scheme}://{settings.listen.host}:{settings.listen.port}"
    _log.info("serving", address=address, fingerprint=fingerprint)
    config = uvicorn.Config(
        api.application(plane),
        host=settings.listen.host,
        port=settings.listen.port,
        ssl_certfile=None if certificate is None else certificate.certificate,
        ssl_keyfile=None if certificate is None else certificate.key,
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME_BYTES,
        ws_ping_interval=PING_INTERVAL_SECONDS,
        ws_ping_timeout=PONG_SECONDS,
        timeout_graceful_shutdown=int(settings.limits.stop_seconds),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    return _Server(config)


class _Server(uvicorn.Server):
    """Stops on a signal and returns; uvicorn's own would raise the signal again, past our closing of the database."""

    has_given_up = False

    def give_up(self) -> None:
        """Stops because nothing can be acknowledged any more; whoever supervises starts a new process."""
        self.has_given_up = self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


@contextlib.contextmanager
def _alone(settings: ServerSettings) -> Iterator[None]:
    """Holds the data directory, so that two servers never share a SQLite file."""
    if settings.storage.url:
        yield
        return
    with (settings.data / "server.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"another server uses {settings.data}", code="AlreadyRunning", hint="stop it, or use PostgreSQL"
            ) from error
        yield
