"""The gateway's own view of traffic: which host and path goes to which endpoints.

The agent makes a `RoutingTable`; the compiler turns it into Envoy resources.
Neither knows the other's words. The rules of what may be routed at all are in
`admission.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

PROTOCOLS = ("http", "websocket", "grpc")

PROBE_HOST = "gateway.minuet.internal"
"""A host of the gateway itself: what it answers proves that the listener works and which routes are in force."""

PROBE_PATH = "/.well-known/minuet/routes"


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
