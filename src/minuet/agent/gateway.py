"""The agent's hand on the gateway: writes the snapshot, learns whether Envoy took it, counts what drains.

It speaks to Envoy's admin socket only to read. Routing goes on without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from minuet.agent import envoy_admin
from minuet.gateway.admission import Admitted, admit
from minuet.gateway.bootstrap import ADMIN_SOCKET
from minuet.gateway.compiler import BrokenInvariant, Compiled, cluster_name, compile_table, probe_answer
from minuet.gateway.limits import GatewayLimits
from minuet.gateway.model import PROBE_HOST, PROBE_PATH, RoutingTable
from minuet.gateway.snapshot import FILES, Snapshot, guard_shrinking, hosts_of, with_departing
from minuet.gateway.validation import objection
from minuet.kernel.errors import MinuetError
from minuet.kernel.retry import GiveUp, Retry

_CONFIRM_SECONDS = 5.0
_LOOK_SECONDS = 0.003
_UNWRITABLE_SECONDS = 5.0
_UNSURE = (OSError, TimeoutError, ValueError)
_STATISTICS = {
    "clusters": "cluster_manager.cds",
    "listeners": "listener_manager.lds",
    "routes": "http.ingress.rds.ingress",
}
_LONGEST_STORY = 600


@dataclass(frozen=True, slots=True)
class _Standing:
    """What Envoy says of its configuration: the version of each kind, and how often it refused one."""

    versions: Mapping[str, str]
    refused: int


class GatewayHost:
    """Applies routing tables to the Envoy of this data plane; one at a time."""

    def __init__(
        self, directory: Path, address: str, port: int, limits: GatewayLimits | None = None, *, envoy: str = ""
    ) -> None:
        self._snapshot = Snapshot(directory)
        self._admin_socket = directory / ADMIN_SOCKET
        self._address = address
        self._port = port
        self._envoy = envoy
        self._limits = limits or GatewayLimits()
        self._table: RoutingTable | None = None
        self._admitted = Admitted(RoutingTable())
        self._applied: Compiled | None = None
        self._lock = asyncio.Lock()

    async def apply(self, table: RoutingTable, removed_hosts: frozenset[str] = frozenset()) -> Admitted:
        """Returns what is served when Envoy has it, and what is not because it breaks a rule; equal tables cost nothing.

        Raises `GiveUp` (`GatewayRejected`) when too much would vanish that is not
        named in `removed_hosts`, or when Envoy refused the table (the last accepted
        one stays), and `Retry` when the snapshot cannot be written, or when Envoy
        does not answer: it is on disk then and Envoy will start from it.
        """
        async with self._lock:
            if table == self._table:
                return self._admitted
            try:
                return await self._apply(table, removed_hosts)
            except OSError as error:
                code = "DiskFull" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
                message = f"the gateway's snapshot cannot be written: {error.strerror or error}"
                raise Retry(message, _UNWRITABLE_SECONDS, code) from error

    async def active_requests(self, backend: str) -> int | None:
        """Requests in flight on a backend; None when Envoy does not answer or does not know it."""
        name = f"cluster.{cluster_name(backend)}.upstream_rq_active: "
        try:
            text = await self._admin("/stats?filter=upstream_rq_active$")
        except _UNSURE:
            return None
        return next((int(line[len(name) :]) for line in text.splitlines() if line.startswith(name)), None)

    async def ready(self) -> bool:
        """Whether a request through the listener itself is answered."""
        return await self._served() is not None

    async def _apply(self, table: RoutingTable, removed: frozenset[str]) -> Admitted:
        before = self._applied or await asyncio.to_thread(self._read_disk)
        admitted, compiled = self._compile(table, before, removed)
        standing = await self._standing()
        if standing is not None and await self._in_force(compiled, standing):
            await asyncio.to_thread(self._snapshot.keep_as_good)
        else:
            await self._move(before, compiled, standing)
        self._table, self._admitted, self._applied = table, admitted, compiled
        return admitted

    def _read_disk(self) -> Compiled | None:
        """What the last agent left; a torn file must not make everything look new and nothing look lost."""
        present = self._snapshot.read()
        if present is None and self._snapshot.restore_good():
            return self._snapshot.read()
        return present

    def _compile(
        self, table: RoutingTable, before: Compiled | None, removed: frozenset[str]
    ) -> tuple[Admitted, Compiled]:
        incumbents = {route.host: route.owner for route in self._admitted.table.routes}
        try:
            admitted = admit(table, incumbents)
            compiled = compile_table(admitted.table, self._address, self._port, self._limits)
            guard_shrinking(hosts_of(before), hosts_of(compiled), removed)
        except MinuetError as error:
            raise GiveUp("GatewayRejected", error.message) from error
        except BrokenInvariant as error:
            raise GiveUp("GatewayRejected", f"The compiler made what Envoy must not be given: {error}.") from error
        return admitted, compiled

    async def _move(self, before: Compiled | None, compiled: Compiled, standing: _Standing | None) -> None:
        """Make before break, one kind after the other, each confirmed before the next is written.

        Clusters that routes still name go only after the routes have moved, so that
        no moment has a route to nowhere, and a refusal stops before anything moved.
        """
        # Until Envoy confirms, nobody knows what is in force.
        self._table = self._applied = None
        refused = standing.refused if standing else 0
        if before is None or standing is None:
            await self._push(tuple(FILES), compiled, refused)
        else:
            between = with_departing(before, compiled)
            for kind in FILES:
                if _is_stale(kind, before, standing, between):
                    await self._push((kind,), between, refused)
            if between is not compiled:
                await self._push(("clusters",), compiled, refused)
        await asyncio.to_thread(self._snapshot.keep_as_good)

    async def _push(self, kinds: tuple[str, ...], compiled: Compiled, refused_before: int) -> None:
        """Writes these kinds and returns when Envoy has them."""
        await asyncio.to_thread(self._snapshot.write, compiled, kinds)
        for kind in kinds:
            await self._confirm(kind, compiled, refused_before)

    async def _confirm(self, kind: str, compiled: Compiled, refused_before: int) -> None:
        deadline = time.monotonic() + _CONFIRM_SECONDS
        while time.monotonic() < deadline:
            standing = await self._standing()
            if standing and standing.refused > refused_before:
                story = await self._objection(compiled)
                await asyncio.to_thread(self._snapshot.restore_good)
                raise GiveUp(
                    "GatewayRejected", f"Envoy refused the {kind}; the last ones stay: {story[:_LONGEST_STORY]}"
                )
            if standing and await self._has(kind, compiled, standing):
                return
            await asyncio.sleep(_LOOK_SECONDS)
        raise Retry("Envoy does not confirm its configuration yet", after=0.5)

    async def _objection(self, compiled: Compiled) -> str:
        """What Envoy says against it, if its binary can be asked."""
        with contextlib.suppress(OSError):
            return await asyncio.to_thread(objection, compiled, self._envoy) or "its log says why"
        return "its log says why"

    async def _in_force(self, compiled: Compiled, standing: _Standing) -> bool:
        """Whether disk and Envoy both have it already, as after a restart of the agent."""
        for kind in FILES:
            if not await self._has(kind, compiled, standing):
                return False
        return await asyncio.to_thread(self._snapshot.read) == compiled

    async def _has(self, kind: str, compiled: Compiled, standing: _Standing) -> bool:
        """Routes are believed only when the listener itself answers with them."""
        if standing.versions[kind] != getattr(compiled, kind).version:
            return False
        return kind != "routes" or await self._served() == probe_answer(compiled)

    async def _served(self) -> str | None:
        """What the gateway's own page says, asked through the listener."""
        with contextlib.suppress(*_UNSURE):
            return await envoy_admin.get_tcp(self._address, self._port, PROBE_HOST, PROBE_PATH)
        return None

    async def _standing(self) -> _Standing | None:
        try:
            text = await self._admin(f"/stats?filter=^({'|'.join(_STATISTICS.values())})")
        except _UNSURE:
            return None
        values = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        refusals = ("update_rejected", "update_failure")
        return _Standing(
            versions={kind: values.get(f"{name}.version_text", "").strip('"') for kind, name in _STATISTICS.items()},
            refused=sum(int(value) for name, value in values.items() if name.endswith(refusals)),
        )

    async def _admin(self, path: str) -> str:
        return await envoy_admin.get_unix(self._admin_socket, path)


def _is_stale(kind: str, disk: Compiled, envoy: _Standing, wanted: Compiled) -> bool:
    """Whether the disk or Envoy does not have a kind in the version that is wanted.

    Of the routes that is always assumed, since only the listener's own answer counts.
    """
    version = getattr(wanted, kind).version
    return kind == "routes" or getattr(disk, kind).version != version or envoy.versions[kind] != version
