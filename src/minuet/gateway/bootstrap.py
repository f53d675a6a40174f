"""The static part of Envoy's configuration: where the snapshot is, the admin socket, the overload rules."""

from __future__ import annotations

from typing import Any

from minuet.gateway.envoy_types import extension, file_source
from minuet.gateway.limits import GatewayLimits

ADMIN_SOCKET = "admin.sock"
_HEAP = "envoy.resource_monitors.fixed_heap"

_KEPT_STATISTICS = (
    {"prefix": "http.ingress."},
    {"prefix": "listener_manager."},
    {"prefix": "cluster_manager."},
    {"prefix": "server."},
    {"safe_regex": {"regex": r"cluster\..*\.(upstream_rq_(2xx|4xx|5xx|total|time|active)|upstream_cx_active)"}},
)


def bootstrap(limits: GatewayLimits | None = None) -> dict[str, Any]:
    """Returns what Envoy is started with; paths are relative to its working directory."""
    limits = limits or GatewayLimits()
    return {
        "node": {"id": "gateway", "cluster": "minuet"},
        # The agent reads it through the gateway's group; nobody else reaches the directory.
        "admin": {"address": {"pipe": {"path": f"./{ADMIN_SOCKET}", "mode": 0o660}}},
        "dynamic_resources": {
            "lds_config": file_source("listeners.json"),
            "cds_config": file_source("clusters.json"),
        },
        "stats_config": {"stats_matcher": {"inclusion_list": {"patterns": list(_KEPT_STATISTICS)}}},
        "overload_manager": _overload(limits),
    }


def _overload(limits: GatewayLimits) -> dict[str, Any]:
    """Sheds load before memory or file descriptors run out."""
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            extension(
                _HEAP,
                "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                max_heap_size_bytes=str(limits.heap_bytes),
            ),
            extension(
                "envoy.resource_monitors.global_downstream_max_connections",
                "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                max_active_downstream_connections=str(limits.connections),
            ),
        ],
        "actions": [
            _action("envoy.overload_actions.disable_http_keepalive", 0.92),
            _action("envoy.overload_actions.shrink_heap", 0.95),
            _action("envoy.overload_actions.stop_accepting_requests", 0.98),
        ],
    }


def _action(name: str, threshold: float) -> dict[str, Any]:
    return {"name": name, "triggers": [{"name": _HEAP, "threshold": {"value": threshold}}]}
