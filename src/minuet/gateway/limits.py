"""The limits of the edge, as data, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """Sizes in bytes, times in seconds.

    Documented limits of the platform come first; what they do not name follows
    Envoy's advice for an edge proxy.
    """

    body_bytes: int = 50 * 1024 * 1024
    url_bytes: int = 2048
    headers_kib: int = 40
    header_bytes: int = 10 * 1024
    header_count: int = 100
    request_seconds: float = 60.0
    request_headers_seconds: float = 5.0
    idle_seconds: float = 300.0
    websocket_seconds: float = 900.0
    websocket_idle_seconds: float = 300.0
    connections: int = 20_000
    heap_bytes: int = 512 * 1024 * 1024
    http2_streams: int = 100
    http2_stream_window: int = 64 * 1024
    http2_connection_window: int = 1024 * 1024
    upstream_connections: int = 4096
    """Per backend; Envoy's own default of 1024 would refuse long before the machine is busy."""

    upstream_idle_seconds: float = 1.5
    """Shorter than any common server keeps an idle connection (2 s), so that no request meets one that just closed."""

    connect_seconds: float = 1.0
