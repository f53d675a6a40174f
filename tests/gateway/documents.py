"""Routing tables as a person would write them, for the golden pairs."""

from __future__ import annotations

from typing import Any

from minuet.gateway.model import Backend, Endpoint, RouteRule, RoutingTable


def read_table(document: dict[str, Any]) -> RoutingTable:
    """Reads `routes` and `backends`; an endpoint is `address:port`, with ` draining` after it when it is."""
    routes = tuple(
        RouteRule(
            host=item["host"],
            base_path=item["basePath"],
            backend=item["backend"],
            owner=item["owner"],
            strip_base_path=item.get("stripBasePath", False),
            protocol=item.get("protocol", "http"),
        )
        for item in document.get("routes", [])
    )
    backends = tuple(
        Backend(key, tuple(_endpoint(text) for text in endpoints or ()))
        for key, endpoints in document.get("backends", {}).items()
    )
    return RoutingTable(routes, backends)


def _endpoint(text: str) -> Endpoint:
    place, _, state = text.partition(" ")
    address, _, port = place.rpartition(":")
    return Endpoint(address.strip("[]"), int(port), state == "draining")
