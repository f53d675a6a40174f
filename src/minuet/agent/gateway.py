"""The agent's hand on the gateway: writes the snapshot, learns whether Envoy took it, counts what drains.

It speaks to Envoy's admin socket only to read. Routing goes on without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

from minuet.gateway.bootstrap import ADMIN_SOCKET
from minuet.gateway.compiler import Compiled, cluster_name, compile_table
from minuet.gateway.limits import GatewayLimits
from minuet.gateway.model import RoutingTable
from minuet.gateway.snapshot import Snapshot, guard_shrinking
from minuet.kernel.errors import MinuetError
from minuet.kernel.retry import GiveUp, Retry

_CONFIRM_SECONDS = 5.0
_LOOK_SECONDS = 0.003
_ADMIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Versions:
    """Which clusters Envoy says it took, and how often it refused something."""

    clusters: str
    rejected: int


class GatewayHost:
    """Applies routing tables to the Envoy of this data plane; one at a time."""

    def __init__(self, directory: Path, address: str, port: int, limits: GatewayLimits | None = None) -> None:
        self._directory = directory
        self._snapshot = Snapshot(directory)
        self._address = address
        self._port = port
        self._limits = limits or GatewayLimits()
        self._applied: Compiled | None = None
        self._lock = asyncio.Lock()

    async def apply(self, table: RoutingTable, removed_hosts: frozenset[str] = frozenset()) -> None:
        """Returns when Envoy has the table; equal tables cost nothing.

        Raises `GiveUp` (`GatewayRejected`) when the table cannot be compiled or
        Envoy refused it (the last accepted one stays), `Retry` when Envoy does
        not answer: the snapshot is on disk then and Envoy will start from it.
        """
        async with self._lock:
            try:
                compiled = compile_table(table, self._address, self._port, self._limits)
                hosts = frozenset(route.host for route in table.routes)
                guard_shrinking(self._snapshot.hosts() - {"gateway.minuet.internal"}, hosts, removed_hosts)
            except MinuetError as error:
                raise GiveUp("GatewayRejected", error.message) from error
            if compiled == self._applied:
                return
            before = await self._versions()
            self._snapshot.write(compiled)
            await self._confirm(compiled, before.rejected if before else 0)
            self._snapshot.keep_as_good()
            self._applied = compiled

    async def active_requests(self, backend: str) -> int | None:
        """Requests in flight on a backend; None when Envoy does not answer or does not know it."""
        name = cluster_name(backend)
        try:
            text = await self._admin("/stats?filter=upstream_rq_active")
        except (OSError, TimeoutError, ValueError):
            return None
        prefix = f"cluster.{name}.upstream_rq_active: "
        return next((int(line[len(prefix) :]) for line in text.splitlines() if line.startswith(prefix)), None)

    async def ready(self) -> bool:
        """Whether a request through the listener itself is answered."""
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            return await asyncio.wait_for(self._probe(), _ADMIN_SECONDS) is not None
        return False

    async def _confirm(self, compiled: Compiled, rejected_before: int) -> None:
        routes = compiled.routes.resources["ingress"]["virtual_hosts"][-1]["routes"][0]["direct_response"]["body"]
        wanted = routes["inline_string"]
        deadline = time.monotonic() + _CONFIRM_SECONDS
        while time.monotonic() < deadline:
            versions = await self._versions()
            if versions and versions.rejected > rejected_before:
                await self._back_to_good()
                raise GiveUp("GatewayRejected", "Envoy refused the configuration; the last one stays in force")
            if versions and versions.clusters == compiled.clusters.version and await self._served() == wanted:
                return
            await asyncio.sleep(_LOOK_SECONDS)
        raise Retry("Envoy does not confirm its configuration yet", after=0.5)

    async def _back_to_good(self) -> None:
        self._snapshot.restore_good()
        self._applied = None

    async def _served(self) -> str | None:
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            return await asyncio.wait_for(self._probe(), _ADMIN_SECONDS)
        return None

    async def _probe(self) -> str | None:
        from minuet.gateway.chain import PROBE_HOST, PROBE_PATH

        reader, writer = await asyncio.open_connection(_dialable(self._address), self._port)
        answer = await _get(reader, writer, PROBE_HOST, PROBE_PATH)
        return None if answer is None else str(json.loads(answer)["detail"])

    async def _versions(self) -> _Versions | None:
        try:
            text = await self._admin("/stats?filter=(cds|rds|lds).*(version_text|update_rejected)")
        except (OSError, TimeoutError, ValueError):
            return None
        values = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        rejected = sum(int(value) for name, value in values.items() if name.endswith("update_rejected"))
        texts = {name: value.strip('"') for name, value in values.items() if name.endswith("version_text")}
        clusters = texts.get("cluster_manager.cds.version_text", "")
        return _Versions(clusters, rejected)

    async def _admin(self, path: str) -> str:
        return await asyncio.wait_for(self._ask_admin(path), _ADMIN_SECONDS)

    async def _ask_admin(self, path: str) -> str:
        reader, writer = await asyncio.open_unix_connection(self._directory / ADMIN_SOCKET)
        answer = await _get(reader, writer, "admin", path)
        if answer is None:
            raise OSError("the admin page answered with an error")
        return answer


async def _get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, path: str) -> str | None:
    """One GET on a connection of its own; None unless the answer is a 200.

    The body is read by its length and not to the end of the connection, which
    Envoy keeps open for a second.
    """
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        body = await _body(reader, head)
    except asyncio.IncompleteReadError as error:
        raise OSError("the gateway closed the connection") from error
    finally:
        writer.close()
    return body.decode() if head.startswith("http/1.1 200") else None


async def _body(reader: asyncio.StreamReader, head: str) -> bytes:
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    if "content-length" in fields:
        return await reader.readexactly(int(fields["content-length"]))
    parts = []
    while length := int(await reader.readline(), 16):
        parts.append(await reader.readexactly(length))
        await reader.readline()
    return b"".join(parts)


def _dialable(address: str) -> str:
    return "127.0.0.1" if address in ("0.0.0.0", "::") else address  # noqa: S104 - compared, not bound
