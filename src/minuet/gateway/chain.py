"""The listener and its fixed chain of filters; a deployment never changes it.

Order matters: strip what clients may not send, refuse what is too large, route.
Envoy fails open where a route configures a filter that the chain lacks, so the
compiler checks every such name against `FILTER_NAMES`.
"""

from __future__ import annotations

from minuet.gateway.envoy_types import Resource, extension, file_source, seconds, typed
from minuet.gateway.limits import GatewayLimits
from minuet.gateway.replies import local_replies
from minuet.gateway.size_rules import size_rules

ROUTES = "ingress"
LISTENER = "ingress"

OWN_HEADER_PREFIXES = ("x-envoy-", "x-forwarded-", "x-minuet-")
OWN_HEADERS = (
    "forwarded",
    "x-client-id",
    "x-consumer",
    "x-jwt-assertion",
    "x-original-url",
    "x-real-ip",
    "x-request-id",
    "x-rewrite-url",
    "x-user",
)
"""What only the gateway may tell an application; a client's own is removed before anything reads it."""


def listener(address: str, port: int, limits: GatewayLimits) -> Resource:
    """The one listener that carries all traffic of the data plane."""
    return typed(
        "envoy.config.listener.v3.Listener",
        name=LISTENER,
        address={"socket_address": {"address": address, "port_value": port}},
        # Shared, the port could be joined in silence by any process of the same uid.
        enable_reuse_port=False,
        per_connection_buffer_limit_bytes=32 * 1024,
        filter_chains=[{"filters": [_connection_manager(limits)]}],
    )


def filters(limits: GatewayLimits) -> list[Resource]:
    """The chain in its order; the router is always last."""
    router = extension(
        "envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True
    )
    return [*size_rules(limits), router]


FILTER_NAMES = frozenset(item["name"] for item in filters(GatewayLimits()))
"""Every name that a route may configure."""


def _connection_manager(limits: GatewayLimits) -> Resource:
    return extension(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="ingress",
        rds={"route_config_name": ROUTES, "config_source": file_source("routes.json")},
        http_filters=filters(limits),
        server_name="minuet",
        stream_idle_timeout=seconds(limits.idle_seconds),
        request_headers_timeout=seconds(limits.request_headers_seconds),
        max_request_headers_kb=limits.headers_kib,
        upgrade_configs=[{"upgrade_type": "websocket", "enabled": False}],
        local_reply_config=local_replies(),
        **_normal_forms(),
        **_protocols(limits),
    )


def _normal_forms() -> Resource:
    """One reading of address, path and client for gateway and application alike."""
    return {
        "use_remote_address": True,
        # An empty list would still trust private addresses; nobody has this one, so every client is a stranger.
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "strip_trailing_host_dot": True,
        "generate_request_id": True,
        "preserve_external_request_id": False,
        "always_set_request_id_in_response": True,
        "early_header_mutation_extensions": [_stripped()],
    }


def _protocols(limits: GatewayLimits) -> Resource:
    return {
        "common_http_protocol_options": {
            "idle_timeout": seconds(limits.idle_seconds),
            "headers_with_underscores_action": "REJECT_REQUEST",
            "max_headers_count": limits.header_count,
        },
        # A client that offers to speak HTTP/2 or TLS instead is answered in what it speaks already.
        "http_protocol_options": {"ignore_http_11_upgrade": [{"exact": "h2c"}, {"prefix": "TLS/"}]},
        "http2_protocol_options": {
            "max_concurrent_streams": limits.http2_streams,
            "initial_stream_window_size": limits.http2_stream_window,
            "initial_connection_window_size": limits.http2_connection_window,
        },
    }


def _stripped() -> Resource:
    matchers = [{"prefix": prefix} for prefix in OWN_HEADER_PREFIXES] + [{"exact": name} for name in OWN_HEADERS]
    return extension(
        "envoy.http.early_header_mutation.header_mutation",
        "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        mutations=[{"remove_on_match": {"key_matcher": matcher}} for matcher in matchers],
    )
