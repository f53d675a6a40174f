"""Which routes are in force, and which versions nobody is sent to any more. The reconciler asks it.

Separate from the loop, because the gateway answers in its own time: a table is
applied in a task of its own, and until the gateway has confirmed one, every
version that exists may get requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from minuet.agent import story
from minuet.agent.drivers.port import InstanceState
from minuet.agent.inventory import Contents
from minuet.agent.model import Memory, Moment, Unrouted, WorkloadPlan
from minuet.agent.routing import backend_key, owner_of, table_of
from minuet.gateway.admission import Admitted
from minuet.gateway.model import RoutingTable
from minuet.infra.telemetry import logger
from minuet.kernel.clock import Clock
from minuet.kernel.conditions import ConditionType
from minuet.kernel.retry import GiveUp, Retry
from minuet.protocol.desired import Workload

PATIENCE_SECONDS = 0.5
"""How long a round waits for the gateway, which confirms in milliseconds when it is well, before it goes on without."""

_REFUSED_SECONDS = 5.0
_LONGEST_STORY = 600

_log = logger(__name__)


class Gateway(Protocol):
    """What the loop needs of the gateway."""

    async def apply(self, table: RoutingTable, removed_hosts: frozenset[str] = frozenset()) -> Admitted: ...

    async def active_requests(self, backend: str) -> int | None: ...


class Traffic:
    """What the gateway was told and what it said; lost with the process and found again by applying."""

    def __init__(self, gateway: Gateway, clock: Clock, wake: Callable[[], None]) -> None:
        self._gateway = gateway
        self._clock = clock
        self._wake = wake
        self._asked: RoutingTable | None = None
        self._routed: RoutingTable | None = None
        self._refused: dict[str, str] = {}
        self._applying: asyncio.Task[Admitted] | None = None
        self._tried: RoutingTable | None = None
        self._trouble: Retry | GiveUp | None = None
        self._not_before = 0.0
        self._unrouted: dict[tuple[str, str], float] = {}
        self._surplus: dict[tuple[str, str], float] = {}

    @property
    def is_known(self) -> bool:
        """Whether the gateway has confirmed a table in this life of the agent."""
        return self._routed is not None

    @property
    def pause(self) -> float | None:
        """Seconds until the gateway is to be asked again; nothing when it answered."""
        return self._trouble.after if isinstance(self._trouble, Retry) else None

    def templates(self, key: str, instances: tuple[InstanceState, ...]) -> frozenset[str]:
        """The versions of a workload that routes name, or may name while nobody knows."""
        if self._routed is None or isinstance(self._trouble, Retry):
            return frozenset(instance.template for instance in instances)
        return frozenset(route.backend.rpartition("@")[2] for route in self._routed.routes if route.owner == key)

    async def unrouted(
        self, key: str, instances: tuple[InstanceState, ...], routed: frozenset[str], now: Moment
    ) -> dict[str, Unrouted]:
        """Versions without a route since when, with what is in flight; and instances that are one too many."""
        found: dict[str, Unrouted] = {}
        if self._routed is None or isinstance(self._trouble, Retry):
            return found
        for template in {instance.template for instance in instances}:
            if template in routed:
                self._unrouted.pop((key, template), None)
                continue
            since = self._unrouted.setdefault((key, template), now.monotonic)
            found[template] = Unrouted(since, await self._active(key, template))
        for instance in instances:
            if self._in_table(key, instance):
                self._surplus.pop((key, instance.id), None)
            else:
                since = self._surplus.setdefault((key, instance.id), now.monotonic)
                found[instance.id] = Unrouted(since, None)
        return found

    def is_routed(self, workload: Workload) -> bool:
        """Whether requests reach this very version, or it has no route to be reached by."""
        if not workload.routes:
            return True
        wanted = {backend_key(workload.key, route.port, workload.template) for route in workload.routes}
        table = self._routed or RoutingTable()
        return bool(wanted & {route.backend for route in table.routes})

    async def route(self, contents: Contents, plans: Mapping[str, WorkloadPlan]) -> bool:
        """Moves the routes; says whether they changed. A refused table leaves the old one in force.

        A gateway that takes its time is not waited for: until it has answered,
        nobody knows which table is in force.
        """
        if self._applying is None:
            routings = (plan.routing for plan in plans.values() if plan.routing is not None)
            table = table_of(routings, self._routed)
            if not self._is_due(table):
                return False
            self._tried = table
            self._applying = asyncio.create_task(self._gateway.apply(table, self._removed_hosts(table, contents)))
            self._applying.add_done_callback(lambda _: self._wake())
            await asyncio.wait({self._applying}, timeout=PATIENCE_SECONDS)
        if not self._applying.done():
            self._trouble = Retry("the gateway has not confirmed its routes yet", after=1.0)
            return False
        done, self._applying = self._applying, None
        return self._take(done)

    def tell(self, contents: Contents, plans: dict[str, WorkloadPlan], now: Moment) -> None:
        """Starting goes on while the gateway does not take routes; it is told of those that wait for it."""
        for key, plan in plans.items():
            workload = contents.workloads.get(key)
            claims = any(condition.type is ConditionType.ROUTED for condition in plan.conditions)
            if workload is None or not claims or not workload.routes:
                continue
            refused = self._refused.get(key) if plan.routing and plan.routing.workload == workload else None
            if refused is None and (self._trouble is None or self.is_routed(workload)):
                continue
            is_refused = refused is not None or isinstance(self._trouble, GiveUp)
            message = refused or str(self._trouble)
            told = story.unrouted(plan.conditions, workload, refused=is_refused, message=message, now=now)
            plans[key] = replace(plan, conditions=told)

    def close(self) -> None:
        """Ends the waiting for the gateway."""
        if self._applying is not None:
            self._applying.cancel()

    def forget_all_but(self, keys: set[str], instances: set[str]) -> None:
        self._unrouted = {place: since for place, since in self._unrouted.items() if place[0] in keys}
        self._surplus = {place: since for place, since in self._surplus.items() if place[1] in instances}

    def _is_due(self, table: RoutingTable) -> bool:
        """Whether the gateway is to be asked: for another table than it has, and not again at once for a refused one."""
        if table == self._asked and not isinstance(self._trouble, Retry):
            self._trouble = None
            return False
        return table != self._tried or self._clock.monotonic() >= self._not_before

    def _take(self, done: asyncio.Task[Admitted]) -> bool:
        self._trouble = None
        try:
            admitted = done.result()
        except (Retry, GiveUp) as trouble:
            self._fail(trouble)
            return False
        except Exception:  # noqa: BLE001 - a defect in what one table brings out must not end the loop
            _log.exception("gateway.broke")
            self._fail(Retry("applying the routes met a defect of the agent, whose log says more", after=1.0))
            return False
        self._asked, self._routed = self._tried, admitted.table
        self._refused = _stories(admitted)
        return True

    def _fail(self, trouble: Retry | GiveUp) -> None:
        _log.error("gateway.refused", reason=trouble.reason, message=str(trouble))
        self._trouble = trouble
        pause = trouble.after if isinstance(trouble, Retry) else _REFUSED_SECONDS
        self._not_before = self._clock.monotonic() + pause

    def _removed_hosts(self, table: RoutingTable, contents: Contents) -> frozenset[str]:
        """Hosts that may vanish: what was routed or is declared and is not in the table, and what tombstones had."""
        kept = {route.host for route in table.routes}
        before = {route.host for route in self._routed.routes} if self._routed else set()
        known = {route.host for workload in contents.workloads.values() for route in workload.routes}
        memories = (contents.memories.get(key, Memory()).serving for key in contents.tombstones)
        buried = {route.host for workload in memories if workload for route in workload.routes}
        return frozenset((before | known) - kept | buried)

    def _in_table(self, key: str, instance: InstanceState) -> bool:
        prefix, location = f"{key}:", instance.location
        table = self._routed or RoutingTable()
        return location is not None and any(
            location.holds(endpoint)
            for backend in table.backends
            if backend.key.startswith(prefix)
            for endpoint in backend.endpoints
        )

    async def _active(self, key: str, template: str) -> int | None:
        prefix, suffix = f"{key}:", f"@{template}"
        table = self._routed or RoutingTable()
        names = [b.key for b in table.backends if b.key.startswith(prefix) and b.key.endswith(suffix)]
        counts = [await self._gateway.active_requests(name) for name in names]
        return None if None in counts else sum(count or 0 for count in counts)


def _stories(admitted: Admitted) -> dict[str, str]:
    """Why something of a workload is not routed, by its key; a backend that was refused takes its routes along."""
    found: dict[str, str] = {}
    for refusal in admitted.refusals:
        owner = owner_of(refusal.owner) or refusal.owner
        story_so_far = f"{found[owner]}; " if owner in found else ""
        found[owner] = f"{story_so_far}{refusal.subject}: {refusal.reason}"[:_LONGEST_STORY]
    return found
