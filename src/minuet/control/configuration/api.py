"""Routes of configurations. What a change does to what runs is decided by delivery, through `Apply`."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response
from pydantic import Field, StrictBool

from minuet.control.catalog import service as catalog
from minuet.control.catalog.api import COMPONENT, CurrentComponent
from minuet.control.catalog.model import Component
from minuet.control.configuration import model, service
from minuet.control.configuration.model import Configuration, StoredEntry
from minuet.control.configuration.service import Given
from minuet.control.identity.api import Scope, Scoped
from minuet.control.planes import service as planes
from minuet.control.planes.model import Environment
from minuet.infra.database import Transaction
from minuet.infra.vault import Vault
from minuet.kernel import health
from minuet.kernel.clock import Clock
from minuet.kernel.health import HealthCheck, Limit, ProbeKind
from minuet.kernel.names import MAX_NAME
from minuet.render.inputs import EntryKind
from minuet.web import etags, routing
from minuet.web.etags import IfMatch
from minuet.web.models import CONFIDENTIAL, Input, Model, Timestamp
from minuet.web.routing import Tx

ENVIRONMENT = f"{COMPONENT}/environments/{{environment}}"
"""Prefix of everything about a component in an environment."""

EnvironmentName = Annotated[
    str, Path(max_length=MAX_NAME, description="Name of the environment, in any case of letters.")
]


class EntryBody(Model):
    """One configured value; of a secret only that it exists."""

    name: str
    kind: EntryKind
    value: str | None = None
    mount_path: str | None = None
    version: int
    updated_at: Timestamp


class HealthBody(Model):
    """How an instance shows that it can take requests. Times in seconds; `port` only if one was named."""

    kind: ProbeKind
    port: int | None = None
    path: str | None = None
    failure_threshold: int
    success_threshold: int
    initial_delay: int
    period: int
    timeout: int


class ConfigurationBody(Model):
    """What a component is configured with in an environment; without `health` the platform's own gate holds."""

    revision: int
    entries: list[EntryBody]
    health: HealthBody | None = None


class ChangedConfigurationBody(ConfigurationBody):
    """The configuration after a change; `deployment` is the one that brings it into force, if there is one."""

    deployment: str | None = None


class EntryInput(Input):
    """One value to set."""

    name: str = Field(max_length=model.MAX_NAME, examples=["GREETING"])
    kind: EntryKind = EntryKind.VARIABLE
    value: Annotated[str, Field(max_length=model.MAX_FILE), CONFIDENTIAL]
    mount_path: str | None = Field(None, max_length=model.MAX_MOUNT_PATH, examples=["/app/config.json"])


def _number(limit: Limit) -> Any:
    return Field(limit.default, ge=limit.least, le=limit.most, description=limit.meaning)


class HealthInput(Input):
    """A health check; it replaces the one before as a whole."""

    kind: ProbeKind = Field(ProbeKind.HTTP, description="A GET that answers with 200 to 399, or a TCP connection.")
    port: int | None = Field(
        None, ge=1, le=65535, description="Port of an endpoint; that of the first one that fits if not given."
    )
    path: str | None = Field(
        None, max_length=health.MAX_PATH, examples=["/healthz"], description="What a GET asks for, `/` if not given."
    )
    failure_threshold: int = _number(health.FAILURE_THRESHOLD)
    success_threshold: int = _number(health.SUCCESS_THRESHOLD)
    initial_delay: int = _number(health.INITIAL_DELAY)
    period: int = _number(health.PERIOD)
    timeout: int = _number(health.TIMEOUT)

    def value(self) -> HealthCheck:
        """Returns the check; raises `Invalid` for a path that cannot be asked for."""
        given = self.model_dump(by_alias=False)
        return HealthCheck(**given | {"path": health.check_path(self.kind, self.path)})


class ConfigurationChange(Input):
    """Values to set, names to unset and a health check, in one revision; with `apply` it is deployed at once."""

    set: list[EntryInput] = Field(default_factory=list, max_length=model.MAX_ENTRIES)
    unset: list[Annotated[str, Field(max_length=model.MAX_NAME)]] = Field(
        default_factory=list, max_length=model.MAX_ENTRIES
    )
    health: HealthInput | None = Field(None, description="A new health check; null takes the declared one away.")
    apply: StrictBool = True

    def health_after(self, before: HealthCheck | None) -> HealthCheck | None:
        """Returns the health check after the change; one that is not spoken of stays."""
        if "health" not in self.model_fields_set:
            return before
        return None if self.health is None else self.health.value()


Apply = Callable[[Transaction, Scope, Component, Environment], Awaitable[str | None]]
"""Deploys the newest configuration where something is deployed; returns the deployment's id."""


async def _environment_of(scope: Scoped, environment: EnvironmentName, tx: Tx) -> Environment:
    return await planes.get_environment(tx, scope.organization_id, environment)


CurrentEnvironment = Annotated[Environment, Depends(_environment_of)]
"""The environment of the path, in the caller's organization."""


def router(clock: Clock, vault: Vault, apply: Apply) -> APIRouter:
    """Returns the routes of this slice, below `/api/v1`."""
    routes = routing.router(f"{ENVIRONMENT}/configuration", tags=["configuration"])

    @routes.get("")
    async def get_configuration(
        component: CurrentComponent, environment: CurrentEnvironment, tx: Tx, response: Response
    ) -> ConfigurationBody:
        """Shows the newest configuration; secrets by name only."""
        body = _body(await service.current(tx, component, environment))
        etags.put(response, body)
        return body

    @routes.patch("")
    async def change_configuration(
        *,
        scope: Scoped,
        project: Annotated[str, Path(max_length=MAX_NAME)],
        component: CurrentComponent,
        environment: CurrentEnvironment,
        body: ConfigurationChange,
        tx: Tx,
        response: Response,
        if_match: IfMatch = None,
    ) -> ChangedConfigurationBody:
        """Makes a new revision and, unless `apply` is false, deploys it where something is deployed."""
        await catalog.active_component(tx, scope.organization_id, project, component.name)
        before = await service.current(tx, component, environment)
        etags.check(if_match, _body(before))
        given = [Given(item.name, item.kind, item.value, item.mount_path) for item in body.set]
        after = await service.change(
            tx,
            before,
            given,
            body.unset,
            health=body.health_after(before.health),
            vault=vault,
            changed_by=scope.caller.name,
            now=clock.now(),
        )
        deployment = None
        if body.apply and after.revision != before.revision:
            deployment = await apply(tx, scope, component, environment)
        shown = _body(after)
        etags.put(response, shown)
        return ChangedConfigurationBody(**dict(shown), deployment=deployment)

    return routes


def _body(configuration: Configuration) -> ConfigurationBody:
    entries = [_entry(entry) for entry in configuration.entries]
    return ConfigurationBody(revision=configuration.revision, entries=entries, health=health_body(configuration.health))


def health_body(check: HealthCheck | None) -> HealthBody | None:
    """Returns the form of a health check that answers show."""
    if check is None:
        return None
    shown = dataclasses.asdict(check)
    return HealthBody(**shown | {"path": check.path if check.kind is ProbeKind.HTTP else None})


def _entry(entry: StoredEntry) -> EntryBody:
    return EntryBody(
        name=entry.name,
        kind=entry.kind,
        value=entry.value,
        mount_path=entry.mount_path,
        version=entry.version,
        updated_at=entry.updated_at,
    )
