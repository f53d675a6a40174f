"""Which endpoints a component has, which of them get a route, and what is declared but not yet in force.

Called by `workload.py` when it renders, and by delivery before it accepts a
deployment, so that a clash of paths is refused at once.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence

from minuet.kernel.errors import Conflict, Invalid, Violation, invalid_field
from minuet.kernel.health import HealthCheck, ProbeKind
from minuet.kernel.names import MAX_BASE_PATH, host_label
from minuet.protocol.descriptor import Descriptor, Endpoint, EndpointType, Visibility
from minuet.protocol.desired import Probe, Route
from minuet.render.inputs import Built, ComponentType, Place

DEFAULT_PORT = 8080
"""Where an application listens when neither its descriptor, its build configs nor its buildpack say."""

DEFAULT_ENDPOINT = "default"

_PROTOCOLS = {
    EndpointType.REST: "http",
    EndpointType.GRAPHQL: "http",
    EndpointType.WS: "websocket",
    EndpointType.GRPC: "grpc",
}
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)*")


def endpoints_of(built: Built) -> tuple[Endpoint, ...]:
    """Returns the descriptor's endpoints, or the default one of the component's type."""
    if built.component_type is ComponentType.EVENT_HANDLER:
        return ()
    if built.descriptor.endpoints:
        return built.descriptor.endpoints
    port = built.configured_port or built.port or DEFAULT_PORT
    return (Endpoint(name=DEFAULT_ENDPOINT, port=port),)


def ports_of(endpoints: Iterable[Endpoint]) -> tuple[int, ...]:
    """Returns the ports in the order of the endpoints, each once; the first one is `PORT`."""
    return tuple(dict.fromkeys(endpoint.port for endpoint in endpoints))


def speaks_http(endpoint: Endpoint) -> bool:
    """Whether a plain HTTP request gets an answer of some kind."""
    return _PROTOCOLS.get(endpoint.type) in ("http", "websocket")


def is_routed(endpoint: Endpoint) -> bool:
    """Whether the public gateway carries it."""
    return Visibility.PUBLIC in endpoint.visibilities and endpoint.type in _PROTOCOLS


def normal_path(field: str, path: str) -> str:
    """Returns a base path with one leading slash, no trailing one and no dots; raises `Invalid`."""
    joined = "/" + path.strip("/")
    if len(joined) > MAX_BASE_PATH:
        raise invalid_field(field, f"is {len(joined)} characters long, at most {MAX_BASE_PATH} are allowed")
    if joined == "/":
        return joined
    if not _PATH.fullmatch(joined) or posixpath.normpath(joined) != joined:
        raise invalid_field(
            field, "must be a plain path such as /greet, without dots, empty parts, % or ?", given=path[:200]
        )
    return joined


def routes_of(endpoints: Iterable[Endpoint], place: Place) -> tuple[Route, ...]:
    """Returns the routes of the public endpoints, which share one host by their base paths.

    The base path is not stripped: the application sees the path as the client
    sent it, which is what a base path in a descriptor promises. Where there is
    only one HTTP endpoint, the host's remaining paths go to it too.
    Raises `Conflict` (`BasePathConflict`) when two of them want the same path,
    and `Invalid` for what the gateway would not route.
    """
    host = f"{host_label(place.organization, place.project, place.component, place.environment)}.{place.domain}"
    routes: dict[str, Route] = {}
    spoken: dict[int, str] = {}
    for position, endpoint in enumerate(endpoints):
        if not is_routed(endpoint):
            continue
        _check_protocol(f"endpoints.{position}.type", endpoint, spoken)
        path = normal_path(f"endpoints.{position}.service.basePath", endpoint.base_path)
        if path in routes:
            raise Conflict(
                f"the endpoints {routes[path].endpoint} and {endpoint.name} both want the base path {path}",
                code="BasePathConflict",
                hint="give each public endpoint a basePath of its own in .choreo/component.yaml",
            )
        routes[path] = Route.model_validate(
            {
                "endpoint": endpoint.name,
                "host": host,
                "base_path": path,
                "port": endpoint.port,
                "protocol": _PROTOCOLS[endpoint.type],
            }
        )
    return (*routes.values(), *_remaining_paths(tuple(routes.values())))


def _remaining_paths(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """The route of what no base path covers: a health check at the root, say, which only one port can be asked for.

    The host belongs to this component alone. With several HTTP endpoints
    nothing says which of them should answer.
    """
    served = [route for route in routes if route.protocol == "http"]
    if len(served) != 1 or any(route.base_path == "/" for route in routes):
        return ()
    return (served[0].model_copy(update={"base_path": "/"}),)


def declared(routes: Iterable[Route]) -> tuple[Route, ...]:
    """The routes that endpoints declared, without the one of the remaining paths: those are addresses to show."""
    first: dict[str, Route] = {}
    for route in routes:
        first.setdefault(route.endpoint, route)
    return tuple(first.values())


def _check_protocol(field: str, endpoint: Endpoint, spoken: dict[int, str]) -> None:
    """One port speaks gRPC or plain HTTP to the gateway, and not both."""
    kind = "gRPC" if endpoint.type is EndpointType.GRPC else "HTTP"
    if spoken.setdefault(endpoint.port, kind) != kind:
        raise invalid_field(
            field,
            f"asks for {kind} on port {endpoint.port}, where another endpoint speaks {spoken[endpoint.port]}",
            given=endpoint.type.value,
            hint="give gRPC endpoints a port of their own",
        )


def probe_of(check: HealthCheck | None, endpoints: Sequence[Endpoint]) -> Probe | None:
    """Returns the declared check with the port it goes to.

    Raises `Invalid` naming `health.port` for a port that no endpoint has, and
    `health.kind` when there is no endpoint that could be asked in this way.
    """
    if check is None:
        return None
    # A UDP port answers neither a GET nor a connection.
    ports = {endpoint.port for endpoint in endpoints if endpoint.type is not EndpointType.UDP}
    if check.port is not None and check.port not in ports:
        raise _unfit(
            "health.port", "is no port of an endpoint that can be asked", str(check.port), sorted(map(str, ports))
        )
    fitting = (e.port for e in endpoints if e.port in ports and (check.kind is ProbeKind.TCP or speaks_http(e)))
    port = check.port or next(fitting, None)
    if port is None:
        raise _unfit("health.kind", "fits no endpoint: none can be asked in this way", check.kind.value, ())
    return Probe(
        kind=check.kind,
        port=port,
        path=check.path,
        failure_threshold=check.failure_threshold,
        success_threshold=check.success_threshold,
        initial_delay=check.initial_delay,
        period=check.period,
        timeout=check.timeout,
    )


def _unfit(field: str, message: str, given: str, allowed: Sequence[str]) -> Invalid:
    return Invalid(
        f"the health check does not fit what would run: {field} {message}",
        code="HealthCheckUnfit",
        hint="change it with `minuet set health <name>` or take it away with `minuet unset health <name>`; with "
        "--no-deploy if it is meant for the next deployment",
        violations=[Violation(field, message, given, tuple(allowed))],
    )


def not_in_force(endpoints: Sequence[Endpoint], descriptor: Descriptor) -> tuple[str, ...]:
    """Names what the descriptor declares, is kept, and is not acted on by this version."""
    named = []
    for endpoint in endpoints:
        internal = [seen.value for seen in endpoint.visibilities if seen is not Visibility.PUBLIC]
        if internal:
            named.append(f"visibility {' and '.join(internal)} of endpoint {endpoint.name}")
        if endpoint.type not in _PROTOCOLS:
            named.append(f"{endpoint.type.value} endpoint {endpoint.name}")
    acted_on = {endpoint.name for endpoint in endpoints}
    # An event handler serves nothing, whatever its descriptor says.
    dropped = [item.name for item in descriptor.endpoints if item.name not in acted_on]
    named += [f"endpoint {name} of an event handler" for name in dropped]
    named += [f"dependencies.{kind}" for kind, given in sorted(descriptor.dependencies.items()) if given]
    named += [f"variable {item.name} of connection {item.connection}" for item in descriptor.connections]
    named += [f"configurations.file {file.get('name', '')}".rstrip() for file in descriptor.files]
    return (*named, *(("proxy",) if descriptor.proxy else ()))
