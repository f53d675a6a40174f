"""Release, environment and configuration in; one `Workload` document out. Pure: no clock, no store, no keys.

Delivery's controller calls `render` and appends what it returns to the data
plane's log. Equal inputs give equal bytes, which is what lets the controller
see that nothing has to be sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minuet.kernel.errors import Invalid, Violation
from minuet.kernel.health import HealthCheck
from minuet.protocol.desired import EnvironmentVariable, MountedFile, Workload
from minuet.render import endpoints as rules
from minuet.render.inputs import Built, ComponentType, Entry, Identity, Place, Scale, Sealer

PORT = "PORT"

START_SECONDS = 60.0
"""Time that a new version has to become ready, on top of the delay before its health check."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The document, and the declared things that are not in force."""

    workload: Workload
    not_in_force: tuple[str, ...]


def render(
    built: Built,
    place: Place,
    identity: Identity,
    *,
    scale: Scale,
    entries: Sequence[Entry],
    seal: Sealer,
    health: HealthCheck | None = None,
) -> Rendered:
    """Returns the document of one component in one environment.

    Raises `Conflict` when endpoints clash and `Invalid` when values that the
    descriptor asks for are missing or the health check fits no endpoint; `check`
    tells all of it before a deployment is accepted.
    """
    check(built, place, entries, health)
    endpoints = rules.endpoints_of(built)
    ports = rules.ports_of(endpoints)
    workload = Workload(
        key=place.key,
        organization=place.organization,
        project=place.project,
        component=place.component,
        environment=place.environment,
        generation=identity.generation,
        deployment=identity.deployment,
        release=identity.release,
        restart=identity.restart,
        artifact=built.artifact,
        command=built.command,
        environment_variables=_variables(built, ports, entries, place, seal),
        files=_files(entries, place, seal),
        ports=ports,
        replicas=0 if scale.suspended else scale.replicas,
        resources=scale.resources,
        health=rules.probe_of(health, endpoints),
        routes=rules.routes_of(endpoints, place),
        start_timeout=START_SECONDS + (health.initial_delay if health else 0),
    )
    return Rendered(workload, rules.not_in_force(endpoints, built.descriptor))


def check(built: Built, place: Place, entries: Sequence[Entry], health: HealthCheck | None = None) -> None:
    """Raises what would make this release unfit for this environment with this configuration."""
    endpoints = rules.endpoints_of(built)
    rules.routes_of(endpoints, place)
    rules.probe_of(health, endpoints)
    missing = missing_values(built, entries)
    if missing:
        raise Invalid(
            f"the configuration of {place.environment} lacks {', '.join(missing)}, which the descriptor asks for",
            code="ConfigurationMissing",
            hint=f"set each with `minuet set config {_words(place)} NAME=value`, then deploy again",
            violations=[Violation(f"configuration.{name}", "is required and has no value") for name in missing],
        )
    wrong = _wrong_values(built, entries)
    if wrong:
        raise Invalid(
            f"the configuration of {place.environment} has values that the descriptor does not allow: "
            + ", ".join(violation.field.removeprefix("configuration.") for violation in wrong),
            code="ConfigurationInvalid",
            hint=f"set an allowed value with `minuet set config {_words(place)} NAME=value`, then deploy again",
            violations=wrong,
        )


def _words(place: Place) -> str:
    """How a command names the place, so that it can be pasted anywhere."""
    return f"{place.component} --project {place.project} --env {place.environment}"


def missing_values(built: Built, entries: Sequence[Entry]) -> tuple[str, ...]:
    """Returns the names that `configForm` requires and nothing gives a value to."""
    if built.component_type is ComponentType.WEB_APPLICATION:
        return ()
    given = {entry.name for entry in entries if not entry.kind.is_file}
    return tuple(field.name for field in built.descriptor.environment if field.required and field.name not in given)


def _wrong_values(built: Built, entries: Sequence[Entry]) -> list[Violation]:
    """Plain values that are none of those a `configForm` lists; secrets cannot be looked at here."""
    given = {entry.name: entry.value for entry in entries if entry.value is not None and not entry.kind.is_file}
    return [
        Violation(f"configuration.{field.name}", "is not one of the allowed values", given[field.name], field.values)
        for field in built.descriptor.environment
        if field.values and field.name in given and given[field.name] not in field.values
    ]


def _variables(
    built: Built, ports: tuple[int, ...], entries: Sequence[Entry], place: Place, seal: Sealer
) -> tuple[EnvironmentVariable, ...]:
    """The build's variables, the configured ones over them, and `PORT`, sorted by name."""
    variables = {name: EnvironmentVariable(name=name, value=value) for name, value in built.environment}
    for entry in entries:
        if entry.kind.is_file:
            continue
        if entry.kind.is_secret:
            sealed = seal(entry, f"{place.key}/{entry.name}")
            variables[entry.name] = EnvironmentVariable(name=entry.name, sealed=sealed)
        else:
            variables[entry.name] = EnvironmentVariable(name=entry.name, value=entry.value)
    if ports:
        variables[PORT] = EnvironmentVariable(name=PORT, value=str(ports[0]))
    return tuple(variables[name] for name in sorted(variables))


def _files(entries: Sequence[Entry], place: Place, seal: Sealer) -> tuple[MountedFile, ...]:
    files = []
    for entry in sorted(entries, key=lambda entry: entry.mount_path or ""):
        if not entry.kind.is_file or entry.mount_path is None:
            continue
        if entry.kind.is_secret:
            sealed = seal(entry, f"{place.key}/{entry.mount_path}")
            files.append(MountedFile(path=entry.mount_path, sealed=sealed))
        else:
            files.append(MountedFile(path=entry.mount_path, content=entry.value))
    return tuple(files)
