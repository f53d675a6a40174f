"""What may be routed at all: nobody takes another's host, and nothing here can break Envoy's configuration.

`check` is for the compiler, which takes a whole table or none. `admit` is for
the data plane, where one bad route must not stop the others: it leaves out what
is refused and says why. Both apply the same rules.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from minuet.gateway.model import PROBE_HOST, PROTOCOLS, Backend, Endpoint, RouteRule, RoutingTable
from minuet.kernel.errors import Conflict, MinuetError, invalid_field
from minuet.kernel.names import MAX_BASE_PATH

_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
_PATH = re.compile(r"/|(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~!$&'()*+,;=:@-]+)+")
_KEY = re.compile(r"[A-Za-z0-9._@:/-]{1,200}")
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Refusal:
    """A route or backend that was left out: whose it is, and why."""

    owner: str
    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """The part of a table that may be served."""

    table: RoutingTable
    refusals: tuple[Refusal, ...] = ()


def check(table: RoutingTable) -> None:
    """Raises `Invalid` for a field that is not legal and `Conflict` for what two declare."""
    rules = _Rules()
    for backend in table.backends:
        rules.add_backend(backend)
    for route in table.routes:
        rules.add_route(route)


def admit(table: RoutingTable, incumbents: Mapping[str, str] = MappingProxyType({})) -> Admitted:
    """Leaves out what breaks a rule. A host that two claim stays with its incumbent, else with the first by name."""
    rules = _Rules()
    refusals: list[Refusal] = []
    backends: list[Backend] = []
    routes: list[RouteRule] = []
    for backend in table.backends:
        try:
            rules.add_backend(backend)
            backends.append(backend)
        except MinuetError as error:
            refusals.append(Refusal(backend.key, backend.key, error.message))
    for route in sorted(table.routes, key=lambda route: (incumbents.get(route.host) != route.owner, route.owner)):
        try:
            rules.add_route(route)
            routes.append(route)
        except MinuetError as error:
            refusals.append(Refusal(route.owner, f"{route.host}{route.base_path}", error.message))
    return Admitted(RoutingTable(tuple(routes), tuple(backends)), tuple(refusals))


@dataclass(slots=True)
class _Rules:
    """What was accepted so far; each `add` either accepts or raises and changes nothing."""

    protocols: dict[str, str | None] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    places: set[tuple[str, str]] = field(default_factory=set)

    def add_backend(self, backend: Backend) -> None:
        if not _KEY.fullmatch(backend.key):
            raise invalid_field("backend", "is not a legal key", given=backend.key)
        if backend.key in self.protocols:
            raise Conflict(f"the backend {backend.key} is there twice", code="BackendTaken")
        for endpoint in backend.endpoints:
            _check_endpoint(endpoint)
        self.protocols[backend.key] = None

    def add_route(self, route: RouteRule) -> None:
        _check_route(route)
        if route.backend not in self.protocols:
            raise invalid_field("backend", "names a backend that is not in the table", given=route.backend)
        owner = self.owners.get(route.host, route.owner)
        if owner != route.owner:
            raise Conflict(f"{route.host} belongs to {owner}, {route.owner} claims it too", code="HostTaken")
        if (route.host, route.base_path) in self.places:
            raise Conflict(f"{route.host}{route.base_path} is declared twice", code="RouteTaken")
        spoken = "grpc" if route.protocol == "grpc" else "http"
        if (self.protocols[route.backend] or spoken) != spoken:
            raise Conflict(f"{route.backend} cannot speak gRPC and HTTP on one port", code="ProtocolsDiffer")
        self.protocols[route.backend] = spoken
        self.owners[route.host] = route.owner
        self.places.add((route.host, route.base_path))


def _check_endpoint(endpoint: Endpoint) -> None:
    try:
        ipaddress.ip_address(endpoint.address)
    except ValueError:
        raise invalid_field("address", "must be an IP address", given=endpoint.address) from None
    if not 1 <= endpoint.port <= _MAX_PORT:
        raise invalid_field("port", "must be between 1 and 65535", given=endpoint.port)


def _check_route(route: RouteRule) -> None:
    if not _HOST.fullmatch(route.host):
        raise invalid_field("host", "must be a full host name in lower case, without a wildcard", given=route.host)
    if route.host == PROBE_HOST:
        raise Conflict(f"{route.host} is the gateway's own", code="HostTaken")
    if len(route.base_path) > MAX_BASE_PATH:
        raise invalid_field(
            "basePath", f"is {len(route.base_path)} characters long, at most {MAX_BASE_PATH} are allowed"
        )
    if not _PATH.fullmatch(route.base_path):
        raise invalid_field(
            "basePath", "must start with /, not end with it, and hold no . or .. segment", given=route.base_path
        )
    if route.protocol not in PROTOCOLS:
        raise invalid_field("protocol", "is not one of the known ones", given=route.protocol, allowed=PROTOCOLS)
