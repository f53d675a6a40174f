"""From each workload's routing to the gateway's one table. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from minuet.agent.model import Routing
from minuet.gateway.model import Backend, RouteRule, RoutingTable


def backend_key(workload_key: str, port: int, template: str) -> str:
    """The name of one port of one version of a workload."""
    return f"{workload_key}:{port}@{template}"


def owner_of(backend: str) -> str:
    """The key of the workload that a backend belongs to."""
    return backend.rpartition("@")[0].rpartition(":")[0]


def table_of(routings: Iterable[Routing], in_force: RoutingTable | None = None) -> RoutingTable:
    """Joins the workloads' routes, in the order of their keys; what two of them claim is the gateway's to settle.

    A version that drains keeps the ports it has in the table in force, even if
    the version after it has others.
    """
    before = in_force or RoutingTable()
    routes: list[RouteRule] = []
    backends: list[Backend] = []
    for routing in sorted(routings, key=lambda item: item.workload.key):
        workload = routing.workload
        for route in workload.routes:
            key = backend_key(workload.key, route.port, workload.template)
            rule = RouteRule(route.host, route.base_path, key, workload.key, route.strip_base_path, route.protocol)
            routes.append(rule)
        backends += _backends(routing, before)
    return RoutingTable(tuple(routes), tuple(backends))


def _backends(routing: Routing, before: RoutingTable) -> list[Backend]:
    workload = routing.workload
    versions = {**routing.standby, workload.template: routing.endpoints}
    ports = sorted({route.port for route in workload.routes})
    kept = {template: _ports_in(before, workload.key, template) or ports for template in routing.standby}
    return [
        Backend(
            backend_key(workload.key, port, template), tuple(sorted(location.endpoint(port) for location in locations))
        )
        for template, locations in sorted(versions.items())
        for port in kept.get(template, ports)
    ]


def _ports_in(table: RoutingTable, workload_key: str, template: str) -> list[int]:
    prefix, suffix = f"{workload_key}:", f"@{template}"
    names = [b.key for b in table.backends if b.key.startswith(prefix) and b.key.endswith(suffix)]
    return sorted(int(name[len(prefix) : -len(suffix)]) for name in names)
