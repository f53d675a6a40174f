"""Routes of configurations. What a change does to what runs is decided by delivery, through `Apply`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

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
from minuet.kernel.clock import Clock
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


class ConfigurationBody(Model):
    """What a component is configured with in an environment."""

    revision: int
    entries: list[EntryBody]


class ChangedConfigurationBody(ConfigurationBody):
    """The configuration after a change; `deployment` is the one that brings it into force, if there is one."""

    deployment: str | None = None


class EntryInput(Input):
    """One value to set."""

    name: str = Field(max_length=model.MAX_NAME, examples=["GREETING"])
    kind: EntryKind = EntryKind.VARIABLE
    value: Annotated[str, Field(max_length=model.MAX_FILE), CONFIDENTIAL]
    mount_path: str | None = Field(None, max_length=model.MAX_MOUNT_PATH, examples=["/app/config.json"])


class ConfigurationChange(Input):
    """Values to set and names to unset, in one revision; with `apply` it is deployed at once."""

    set: list[EntryInput] = Field(default_factory=list, max_length=model.MAX_ENTRIES)
    unset: list[Annotated[str, Field(max_length=model.MAX_NAME)]] = Field(
        default_factory=list, max_length=model.MAX_ENTRIES
    )
    apply: StrictBool = True


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
            tx, before, given, body.unset, vault=vault, changed_by=scope.caller.name, now=clock.now()
        )
        deployment = None
        if body.apply and after.revision != before.revision:
            deployment = await apply(tx, scope, component, environment)
        shown = _body(after)
        etags.put(response, shown)
        return ChangedConfigurationBody(revision=shown.revision, entries=shown.entries, deployment=deployment)

    return routes


def _body(configuration: Configuration) -> ConfigurationBody:
    entries = [_entry(entry) for entry in configuration.entries]
    return ConfigurationBody(revision=configuration.revision, entries=entries)


def _entry(entry: StoredEntry) -> EntryBody:
    return EntryBody(
        name=entry.name,
        kind=entry.kind,
        value=entry.value,
        mount_path=entry.mount_path,
        version=entry.version,
        updated_at=entry.updated_at,
    )
