"""The agent's one connection, dialled outwards: desired state comes down, observations and answers go up.

Loss of it changes nothing that runs. It comes back by itself with full-jitter
back-off, which is not reset until a connection has lasted.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import random
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import websockets
from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection

from minuet.agent.inventory import Inventory
from minuet.agent.logs import LogStore
from minuet.agent.observe import Observations
from minuet.agent.settings import AgentSettings
from minuet.infra import http
from minuet.infra.telemetry import logger
from minuet.kernel.errors import Forbidden, MinuetError, Unavailable, invalid_field
from minuet.protocol import frames, signing
from minuet.protocol.base import Document
from minuet.protocol.desired import Signed
from minuet.protocol.observed import PlaneReport

_log = logger(__name__)
STABLE_SECONDS = 60.0
_CAP_SECONDS = 15.0
_WELCOME_SECONDS = 10.0
_MAX_QUERIES = 64
REPORT_SECONDS = 1.0
"""How soon the control plane hears of a change of the data plane itself, such as a gateway that came up."""

Reporter = Callable[[], Awaitable[PlaneReport]]


class Link:
    """Keeps a session with one of the control plane's addresses."""

    def __init__(
        self,
        settings: AgentSettings,
        inventory: Inventory,
        observations: Observations,
        logs: LogStore,
        *,
        sealing_key: str,
        report: Reporter,
        on_desired: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._inventory = inventory
        self._observations = observations
        self._logs = logs
        self._sealing_key = sealing_key
        self._report = report
        self._on_desired = on_desired
        self._queries: dict[str, asyncio.Task[None]] = {}
        self._sequence = itertools.count(1)

    async def run(self) -> None:
        """Connects, serves, reconnects; returns only by cancellation."""
        attempt = 0
        for server in itertools.cycle(self._settings.servers):
            began = asyncio.get_running_loop().time()
            try:
                await self._session(server)
            except (OSError, MinuetError, ValidationError, websockets.WebSocketException) as error:
                _log.info("link.down", server=server, error=str(error)[:300])
            finally:
                self._cancel_queries()
            lasted = asyncio.get_running_loop().time() - began
            attempt = 1 if lasted >= STABLE_SECONDS else attempt + 1
            await asyncio.sleep(random.uniform(0, min(_CAP_SECONDS, 0.1 * 2.0 ** min(attempt, 10))))  # noqa: S311

    async def _session(self, server: str) -> None:
        uri = link_uri(server, self._settings.plane)
        token = self._token()
        context = http.tls_context(self._settings.fingerprint) if uri.startswith("wss:") else None
        async with websockets.connect(
            uri,
            ssl=context,
            proxy=None,
            additional_headers={"Authorization": f"Bearer {token}"},
            max_size=frames.MAX_FRAME_BYTES,
            ping_interval=frames.PING_INTERVAL_SECONDS,
            ping_timeout=frames.PING_INTERVAL_SECONDS,
            open_timeout=10,
            close_timeout=2,
        ) as connection:
            self._check_certificate(connection)
            told = await self._hello(connection)
            await self._serve(connection, told)

    def _check_certificate(self, connection: ClientConnection) -> None:
        if self._settings.fingerprint is not None:
            shown = connection.transport.get_extra_info("ssl_object")
            http.check_fingerprint(shown if isinstance(shown, ssl.SSLObject) else None, self._settings.fingerprint)

    async def _hello(self, connection: ClientConnection) -> PlaneReport:
        """Returns what it told about the data plane."""
        position, report = self._inventory.position, await self._report()
        await _send(
            connection,
            frames.Hello(
                plane=self._settings.plane,
                epoch=position.epoch,
                revision=position.revision,
                sealing_key=self._sealing_key,
                report=report,
            ),
        )
        async with asyncio.timeout(_WELCOME_SECONDS):
            welcome = frames.parse_frame(await connection.recv())
        if not isinstance(welcome, frames.Welcome):
            raise Unavailable("the control plane did not say welcome")
        self._pin(welcome.signing_key)
        _log.info("link.up", session=welcome.session, revision=position.revision)
        return report

    def _pin(self, offered: str) -> None:
        known = self._settings.signing_key or self._inventory.pinned("signing_key")
        if known is None:
            self._inventory.pin("signing_key", offered)
        elif known != offered:
            raise Forbidden("the control plane signs with another key than the pinned one", code="WrongSigningKey")

    @property
    def _signing_key(self) -> str:
        key = self._settings.signing_key or self._inventory.pinned("signing_key")
        if key is None:
            raise Unavailable("the control plane's key is not known yet")
        return key

    async def _serve(self, connection: ClientConnection, told: PlaneReport) -> None:
        full = frames.Observed(sequence=next(self._sequence), full=True, workloads=self._observations.everything())
        await _send(connection, full)
        self._forget_removed()
        work = (self._receive(connection), self._tell(connection), self._tell_of_plane(connection, told))
        tasks = [asyncio.create_task(part) for part in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, connection: ClientConnection) -> None:
        while True:
            workloads = await self._observations.news()
            await _send(connection, frames.Observed(sequence=next(self._sequence), workloads=workloads))
            self._forget_removed()

    async def _tell_of_plane(self, connection: ClientConnection, told: PlaneReport) -> None:
        """Tells again what was said at the greeting whenever it has changed."""
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            report = await self._report()
            if report != told:
                told = report
                await _send(connection, frames.Observed(sequence=next(self._sequence), report=report))

    def _forget_removed(self) -> None:
        """What was reported as removed needs no memory here."""
        for key in self._observations.removals():
            self._inventory.forget(key)
            self._observations.drop(key)

    async def _receive(self, connection: ClientConnection) -> None:
        async for message in connection:
            match frames.parse_frame(message):
                case frames.Desired(signed=signed):
                    await self._accept(connection, signed)
                case frames.LogQuery() as query:
                    self._start_query(connection, query)
                case frames.CancelQuery(id=name):
                    if task := self._queries.pop(name, None):
                        task.cancel()
                case other:
                    _log.warning("link.unexpected", frame=type(other).__name__)

    async def _accept(self, connection: ClientConnection, signed: Signed) -> None:
        """Durable first, acknowledged second, acted on third."""
        try:
            revision = signing.open_revision(self._signing_key, signed)
            if revision.plane != self._settings.plane:
                raise Forbidden(f"this revision is for the data plane {revision.plane}", code="WrongPlane")
            fresh = self._inventory.accept(revision)
        except (MinuetError, ValidationError) as error:
            position = self._inventory.position
            code = error.code if isinstance(error, MinuetError) else "DesiredStateInvalid"
            _log.error("desired.refused", code=code, message=str(error)[:500])
            await _send(
                connection,
                frames.Acknowledge(
                    epoch=position.epoch, revision=position.revision, refused=code, message=str(error)[:500]
                ),
            )
            return
        await _send(connection, frames.Acknowledge(epoch=revision.epoch, revision=revision.revision))
        if fresh:
            self._on_desired()

    def _start_query(self, connection: ClientConnection, query: frames.LogQuery) -> None:
        self._queries = {name: task for name, task in self._queries.items() if not task.done()}
        if len(self._queries) < _MAX_QUERIES:
            self._queries[query.id] = asyncio.create_task(self._answer(connection, query))
            return
        refusal = frames.LogAnswer(id=query.id, done=True, error="too many queries at once on this data plane")
        self._queries[query.id] = asyncio.create_task(_send(connection, refusal))

    async def _answer(self, connection: ClientConnection, query: frames.LogQuery) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            try:
                async for lines in self._logs.answer(query):
                    await _send(connection, frames.LogAnswer(id=query.id, lines=lines))
            except OSError as error:
                await _send(
                    connection, frames.LogAnswer(id=query.id, done=True, error=f"cannot read: {error.strerror}")
                )
                return
            await _send(connection, frames.LogAnswer(id=query.id, done=True))

    def _cancel_queries(self) -> None:
        for task in self._queries.values():
            task.cancel()
        self._queries.clear()

    def _token(self) -> str:
        path: Path = self._settings.credential
        try:
            return path.read_text().strip()
        except OSError as error:
            raise Unavailable(f"the credential {path} cannot be read: {error.strerror}") from error


def link_uri(server: str, plane: str) -> str:
    """Returns the WebSocket address; raises `Invalid` for plain HTTP to anything but loopback."""
    parts = urlsplit(server)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise invalid_field("servers", "must be https, because it is not on loopback", given=server)
    if parts.scheme not in ("http", "https"):
        raise invalid_field("servers", "must start with http:// or https://", given=server)
    scheme = "wss" if parts.scheme == "https" else "ws"
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/api/v1/planes/{plane}/link"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _send(connection: ClientConnection, frame: Document) -> None:
    await connection.send(frame.wire())
