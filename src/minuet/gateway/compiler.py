"""Routing table -> Envoy resources. Pure: equal tables give equal resources and versions.

A deployment moves only clusters, endpoints and routes; the listener is made
once from settings. Each kind carries a version that is the hash of its content,
so that an unchanged kind is never written or pushed again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from minuet.gateway import chain
from minuet.gateway.chain import Resource, seconds, typed
from minuet.gateway.limits import GatewayLimits
from minuet.gateway.model import Backend, Endpoint, RouteRule, RoutingTable, check
from minuet.kernel.canonical import canonical_json, digest_of


@dataclass(frozen=True, slots=True)
class Kind:
    """All resources of one kind, keyed by name, and the hash of their content."""

    resources: Mapping[str, Resource]
    version: str

    @classmethod
    def of(cls, resources: Iterable[Resource]) -> Kind:
        keyed = {resource["name"]: resource for resource in resources}
        return cls(keyed, digest_of(canonical_json(keyed))[7:23])


@dataclass(frozen=True, slots=True)
class Compiled:
    """What Envoy is told."""

    listeners: Kind
    clusters: Kind
    routes: Kind


def compile_table(table: RoutingTable, address: str, port: int, limits: GatewayLimits | None = None) -> Compiled:
    """Compiles a table for a listener; raises `Invalid` or `Conflict` for one that must not be served."""
    check(table)
    limits = limits or GatewayLimits()
    grpc = {route.backend for route in table.routes if route.protocol == "grpc"}
    clusters = Kind.of(_cluster(backend, backend.key in grpc, limits) for backend in table.backends)
    hosts = [_virtual_host(host, rules, limits) for host, rules in _by_host(table.routes)]
    version = digest_of(canonical_json(hosts))[7:23]
    routes = Kind.of([_route_configuration(hosts, version)])
    compiled = Compiled(Kind.of([chain.listener(address, port, limits)]), clusters, routes)
    _prove(compiled)
    return compiled


def cluster_name(backend: str) -> str:
    """The name of a backend's cluster in Envoy's statistics and admin pages, which would rewrite a colon."""
    return re.sub("[/:@]", "|", backend)


def _cluster(backend: Backend, grpc: bool, limits: GatewayLimits) -> Resource:
    name = cluster_name(backend.key)
    threshold = {
        "max_connections": limits.upstream_connections,
        "max_pending_requests": limits.upstream_connections,
        "max_requests": limits.upstream_connections,
        "retry_budget": {"budget_percent": {"value": 20.0}, "min_retry_concurrency": 3},
    }
    version: Resource = {"http2_protocol_options": {}} if grpc else {"http_protocol_options": {}}
    options = typed(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        explicit_http_config=version,
        common_http_protocol_options={"idle_timeout": "55s"},
    )
    return typed(
        "envoy.config.cluster.v3.Cluster",
        name=name,
        type="STATIC",
        connect_timeout=seconds(limits.connect_seconds),
        lb_policy="LEAST_REQUEST",
        circuit_breakers={"thresholds": [threshold]},
        common_lb_config={"healthy_panic_threshold": {"value": 0}},
        typed_extension_protocol_options={"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        load_assignment={
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [_endpoint(endpoint) for endpoint in sorted(backend.endpoints)]}],
        },
    )


def _endpoint(endpoint: Endpoint) -> Resource:
    address = {"socket_address": {"address": endpoint.address, "port_value": endpoint.port}}
    status = "DRAINING" if endpoint.draining else "HEALTHY"
    return {"endpoint": {"address": address}, "health_status": status}


def _by_host(routes: Iterable[RouteRule]) -> list[tuple[str, list[RouteRule]]]:
    hosts: dict[str, list[RouteRule]] = {}
    for route in routes:
        hosts.setdefault(route.host, []).append(route)
    return [(host, sorted(rules, key=_most_specific_first)) for host, rules in sorted(hosts.items())]


def _most_specific_first(rule: RouteRule) -> tuple[int, str]:
    return (-len(rule.base_path), rule.base_path)


def _virtual_host(host: str, rules: list[RouteRule], limits: GatewayLimits) -> Resource:
    return {
        "name": host,
        "domains": [host],
        "routes": [route for rule in rules for route in _routes(rule, limits)],
    }


def _routes(rule: RouteRule, limits: GatewayLimits) -> list[Resource]:
    """A rule's routes: one for WebSockets, which live longer, and one for everything else."""
    match: Resource = {"prefix": "/"} if rule.base_path == "/" else {"path_separated_prefix": rule.base_path}
    plain = {"match": match, "route": _action(rule, limits)}
    if rule.protocol == "grpc":
        plain["route"]["max_stream_duration"]["grpc_timeout_header_max"] = seconds(limits.request_seconds)
        return [plain]
    upgrade = {"name": "upgrade", "string_match": {"exact": "websocket", "ignore_case": True}}
    lasting = {
        "match": match | {"headers": [upgrade]},
        "route": _action(rule, limits)
        | {
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "max_stream_duration": {"max_stream_duration": seconds(limits.websocket_seconds)},
            "idle_timeout": seconds(limits.websocket_idle_seconds),
        },
    }
    return [lasting, plain]


def _action(rule: RouteRule, limits: GatewayLimits) -> Resource:
    """Where the request goes, for how long, and when it may be tried again: only before a byte reached the application."""
    action: Resource = {
        "cluster": cluster_name(rule.backend),
        "timeout": "0s",
        "max_stream_duration": {"max_stream_duration": seconds(limits.request_seconds)},
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream",
            "num_retries": 2,
            "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": typed("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
                }
            ],
            "host_selection_retry_max_attempts": "3",
        },
    }
    if rule.strip_base_path and rule.base_path != "/":
        pattern = f"^{re.escape(rule.base_path)}/?"
        action["regex_rewrite"] = {"pattern": {"regex": pattern}, "substitution": "/"}
    return action


def _route_configuration(hosts: list[Resource], version: str) -> Resource:
    """All hosts, and the private one whose answer proves that this configuration is in force."""
    probe = {
        "name": chain.PROBE_HOST,
        "domains": [chain.PROBE_HOST],
        "routes": [
            {
                "match": {"path": chain.PROBE_PATH},
                "direct_response": {"status": 200, "body": {"inline_string": version}},
            }
        ],
    }
    return typed(
        "envoy.config.route.v3.RouteConfiguration",
        name=chain.ROUTES,
        virtual_hosts=[*hosts, probe],
        ignore_port_in_host_matching=True,
        response_headers_to_remove=["x-envoy-upstream-service-time"],
    )


def _prove(compiled: Compiled) -> None:
    """Checks what Envoy would accept in silence and then not do."""
    names = set(compiled.clusters.resources)
    for configuration in compiled.routes.resources.values():
        for host in configuration["virtual_hosts"]:
            for route in host["routes"]:
                _prove_route(route, names)


def _prove_route(route: Mapping[str, Any], clusters: set[str]) -> None:
    cluster = route.get("route", {}).get("cluster")
    if cluster is not None and cluster not in clusters:
        raise AssertionError(f"a route names the cluster {cluster}, which is not there")
    unknown = set(route.get("typed_per_filter_config", {})) - chain.FILTER_NAMES
    if unknown:
        raise AssertionError(f"a route configures filters that are not in the chain: {sorted(unknown)}")
