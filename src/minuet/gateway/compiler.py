"""Routing table -> Envoy resources. Pure: equal tables give equal resources and versions.

A deployment moves only clusters, endpoints and routes; the listener is made
once from settings. Each resource and each kind carries a version that is the
hash of its content, so that what did not change is never written or pushed again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from minuet.gateway import chain
from minuet.gateway.admission import check
from minuet.gateway.envoy_types import Resource, extension, seconds, typed
from minuet.gateway.limits import GatewayLimits
from minuet.gateway.model import PROBE_HOST, PROBE_PATH, Backend, Endpoint, RouteRule, RoutingTable
from minuet.gateway.size_rules import BODY_FILTER


@dataclass(frozen=True, slots=True)
class Kind:
    """All resources of one kind, keyed by name, and the hash of their content."""

    resources: Mapping[str, Resource]
    version: str

    @classmethod
    def of(cls, resources: Iterable[Resource]) -> Kind:
        """Raises `ValueError` when two resources share a name."""
        keyed: dict[str, Resource] = {}
        for resource in resources:
            if keyed.setdefault(resource["name"], resource) is not resource:
                raise ValueError(f"two resources are called {resource['name']}")
        return cls(keyed, content_version(keyed))


@dataclass(frozen=True, slots=True)
class Compiled:
    """What Envoy is told."""

    listeners: Kind
    clusters: Kind
    routes: Kind


class BrokenInvariant(Exception):
    """The compiler made something that Envoy would take in silence and then not do; a defect."""


def content_version(content: object) -> str:
    """A short hash of the content, equal for equal content on every machine."""
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def compile_table(table: RoutingTable, address: str, port: int, limits: GatewayLimits | None = None) -> Compiled:
    """Compiles a table for a listener; raises `Invalid` or `Conflict` for one that must not be served."""
    check(table)
    limits = limits or GatewayLimits()
    grpc = {route.backend for route in table.routes if route.protocol == "grpc"}
    clusters = Kind.of(_cluster(backend, backend.key in grpc, limits) for backend in table.backends)
    hosts = [_virtual_host(host, rules, limits) for host, rules in _by_host(table.routes)]
    routes = Kind.of([_route_configuration(hosts)])
    compiled = Compiled(Kind.of([chain.listener(address, port, limits)]), clusters, routes)
    prove(compiled)
    return compiled


def cluster_name(backend: str) -> str:
    """The name of a backend's cluster in Envoy's statistics and admin pages, which rewrite a colon.

    Injective: the characters that replace others do not occur in a backend's key.
    """
    return backend.translate({ord(":"): "|"})


def probe_answer(compiled: Compiled) -> str:
    """What the gateway's own page says once these routes are in force."""
    for host in compiled.routes.resources[chain.ROUTES]["virtual_hosts"]:
        if host["name"] == PROBE_HOST:
            return str(host["routes"][0]["direct_response"]["body"]["inline_string"])
    raise BrokenInvariant("there is no page of the gateway's own")


def referenced_clusters(routes: Kind) -> frozenset[str]:
    """The clusters that any route names."""
    return frozenset(route["route"]["cluster"] for route in _every_route(routes) if "route" in route)


def prove(compiled: Compiled) -> None:
    """Checks what Envoy would accept in silence and then not do; raises `BrokenInvariant`."""
    missing = referenced_clusters(compiled.routes) - set(compiled.clusters.resources)
    if missing:
        raise BrokenInvariant(f"routes name clusters that are not there: {sorted(missing)}")
    for route in _every_route(compiled.routes):
        unknown = set(route.get("typed_per_filter_config", {})) - chain.FILTER_NAMES
        if unknown:
            raise BrokenInvariant(f"a route configures filters that are not in the chain: {sorted(unknown)}")
    domains: set[str] = set()
    for host in _every_host(compiled.routes):
        if domains & set(host["domains"]) or any("*" in domain for domain in host["domains"]):
            raise BrokenInvariant(f"{host['name']} takes a domain of another host, or a wildcard")
        domains.update(host["domains"])


def _every_host(routes: Kind) -> Iterator[Mapping[str, Any]]:
    for configuration in routes.resources.values():
        yield from configuration["virtual_hosts"]


def _every_route(routes: Kind) -> Iterator[Mapping[str, Any]]:
    for host in _every_host(routes):
        yield from host["routes"]


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
        common_http_protocol_options={"idle_timeout": seconds(limits.upstream_idle_seconds)},
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
            "endpoints": [{"lb_endpoints": [_endpoint(endpoint) for endpoint in sorted(set(backend.endpoints))]}],
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
    plain: Resource = {"match": match, "route": _action(rule, limits)}
    if rule.protocol == "grpc":
        return [_grpc(plain, limits)]
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


def _grpc(route: Resource, limits: GatewayLimits) -> Resource:
    """A caller may ask for less time; a stream of messages is no body, so its size is not counted."""
    route["route"]["max_stream_duration"]["grpc_timeout_header_max"] = seconds(limits.request_seconds)
    off = typed("envoy.config.route.v3.FilterConfig", disabled=True)
    return route | {"typed_per_filter_config": {BODY_FILTER: off}}


def _action(rule: RouteRule, limits: GatewayLimits) -> Resource:
    """Where the request goes, for how long, and when it is tried again: only before a byte reached the application."""
    action: Resource = {
        "cluster": cluster_name(rule.backend),
        "timeout": "0s",
        "max_stream_duration": {"max_stream_duration": seconds(limits.request_seconds)},
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream",
            "num_retries": 2,
            "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
            "retry_host_predicate": [
                extension(
                    "envoy.retry_host_predicates.previous_hosts",
                    "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
                )
            ],
            "host_selection_retry_max_attempts": "12",
        },
    }
    if rule.strip_base_path and rule.base_path != "/":
        # With a prefix rewrite to `/`, Envoy would send `//rest`.
        action["regex_rewrite"] = {"pattern": {"regex": f"^{re.escape(rule.base_path)}/?"}, "substitution": "/"}
    return action


def _route_configuration(hosts: list[Resource]) -> Resource:
    """All hosts, and the private one whose answer proves that this configuration is in force."""
    body = {"inline_string": content_version(hosts)}
    page = {"match": {"path": PROBE_PATH}, "direct_response": {"status": 200, "body": body}}
    return typed(
        "envoy.config.route.v3.RouteConfiguration",
        name=chain.ROUTES,
        virtual_hosts=[*hosts, {"name": PROBE_HOST, "domains": [PROBE_HOST], "routes": [page]}],
        ignore_port_in_host_matching=True,
        request_headers_to_remove=["x-envoy-external-address", "x-envoy-internal"],
        response_headers_to_remove=["x-envoy-upstream-service-time"],
    )
