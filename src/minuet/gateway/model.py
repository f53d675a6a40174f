"""The gateway's own view of traffic: which host and path goes to which endpoints.

The agent makes a `RoutingTable`; the compiler turns it into Envoy resources.
Neither knows the other's words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from minuet.kernel.errors import Conflict, invalid_field

_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
_PATH = re.compile(r"/|(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+")
PROTOCOLS = ("http", "websocket", "grpc")


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """One address that serves; a draining one gets no new requests."""

    address: str
    port: int
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Backend:
    """The endpoints of one port of one version of a workload; `key` is `<workload key>:<port>@<template>`.

    Versions are backends of their own, so that a switch moves only the route and
    what is still in flight on the old version can be counted.
    """

    key: str
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class RouteRule:
    """Requests for `host` below `base_path` go to `backend`; `owner` is the workload that declared it."""

    host: str
    base_path: str
    backend: str
    owner: str
    strip_base_path: bool = False
    protocol: str = "http"


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """All that the gateway routes at one moment."""

    routes: tuple[RouteRule, ...] = ()
    backends: tuple[Backend, ...] = ()


def check(table: RoutingTable) -> None:
    """Refuses what could steal traffic or break Envoy's configuration.

    Raises `Invalid` for a field that is not legal and `Conflict` for a host that
    two owners claim or a path that is declared twice.
    """
    backends = _unique(backend.key for backend in table.backends)
    owners: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    for route in table.routes:
        _check_route(route, backends)
        if owners.setdefault(route.host, route.owner) != route.owner:
            raise Conflict(
                f"{route.host} belongs to {owners[route.host]}, {route.owner} claims it too", code="HostTaken"
            )
        if (route.host, route.base_path) in seen:
            raise Conflict(f"{route.host}{route.base_path} is declared twice", code="RouteTaken")
        seen.add((route.host, route.base_path))


def _check_route(route: RouteRule, backends: set[str]) -> None:
    if not _HOST.fullmatch(route.host):
        raise invalid_field("host", "must be a full host name in lower case, without a wildcard", given=route.host)
    if not _PATH.fullmatch(route.base_path):
        raise invalid_field("basePath", "must start with / and must not end with it", given=route.base_path)
    if route.protocol not in PROTOCOLS:
        raise invalid_field("protocol", "is not one of the known ones", given=route.protocol, allowed=PROTOCOLS)
    if route.backend not in backends:
        raise invalid_field("backend", "names a backend that is not in the table", given=route.backend)


def _unique(keys: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise Conflict(f"the backend {key} is there twice", code="BackendTaken")
        seen.add(key)
    return seen
