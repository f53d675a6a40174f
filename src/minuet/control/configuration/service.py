"""Use-cases of configurations: read, change, and open a secret for the one place it goes to."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field

from minuet.control.catalog.model import Component
from minuet.control.configuration import model, store
from minuet.control.configuration.model import Configuration, Setting, StoredEntry
from minuet.control.planes.model import Environment
from minuet.infra.database import Transaction
from minuet.infra.events import Event
from minuet.infra.vault import Vault
from minuet.kernel.errors import Conflict, NotFound, invalid_field
from minuet.kernel.health import HealthCheck
from minuet.kernel.secrets import Secret
from minuet.render.inputs import EntryKind

CHANGED = "configuration.changed"
"""Event about a new revision; its subject is the component's id."""


@dataclass(frozen=True, slots=True)
class Given:
    """One value as a person gave it."""

    name: str
    kind: EntryKind
    value: str = field(repr=False)
    mount_path: str | None = None


async def current(tx: Transaction, component: Component, environment: Environment) -> Configuration:
    """Returns the newest revision, or the empty one with number 0."""
    found = await store.latest(tx, component.organization_id, component.id, environment.id)
    return found or _empty(component, environment)


async def forget_environment(tx: Transaction, environment: Environment) -> None:
    """Forgets every configuration in an environment that goes."""
    await store.delete_of_environment(tx, environment.organization_id, environment.id)


async def at_revision(tx: Transaction, component: Component, environment_id: str, revision: int) -> Configuration:
    """Returns one revision; raises `NotFound`."""
    if revision == 0:
        return Configuration(component.organization_id, component.project_id, component.id, environment_id, 0)
    found = await store.at_revision(tx, component.organization_id, component.id, environment_id, revision)
    if found is None:
        raise NotFound(f"there is no configuration revision {revision}", code="ConfigurationNotFound")
    return found


async def change(
    tx: Transaction,
    before: Configuration,
    given: Sequence[Given],
    unset: Sequence[str],
    *,
    health: HealthCheck | None,
    vault: Vault,
    changed_by: str,
    now: datetime.datetime,
) -> Configuration:
    """Makes the next revision, with `health` as its health check; returns `before` itself when nothing would differ."""
    names = [item.name for item in given] + list(unset)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise invalid_field("set", f"names {twice} twice")
    known = {entry.name: entry for entry in before.entries}
    settings = [
        _setting(position, item, before, vault)
        for position, item in enumerate(given)
        if not _is_same(position, item, known.get(item.name), before, vault)
    ]
    if not settings and not unset and health == before.health:
        return before
    after = model.changed(before, settings, unset, health, now)
    await store.insert(tx, after, changed_by, now)
    data = {"environment_id": after.environment_id, "revision": after.revision}
    tx.emit(Event(CHANGED, after.organization_id, after.component_id, data))
    return after


def open_secret(vault: Vault, configuration: Configuration, name: str) -> Secret:
    """Returns a secret in the clear, for sealing it again for a data plane; it goes nowhere else."""
    entry = next((entry for entry in configuration.entries if entry.name == name), None)
    if entry is None or entry.sealed is None:
        raise Conflict(f"{name} is not a secret of this configuration", code="ConfigurationNotFound")
    return vault.open(entry.sealed, configuration.context(name))


def _empty(component: Component, environment: Environment) -> Configuration:
    return Configuration(component.organization_id, component.project_id, component.id, environment.id, 0)


def _setting(position: int, item: Given, before: Configuration, vault: Vault) -> Setting:
    path = model.check_entry(position, item.name, item.kind, item.value, item.mount_path)
    size = len(item.value.encode())
    if not item.kind.is_secret:
        return Setting(item.name, item.kind, size, value=item.value, mount_path=path)
    sealed = vault.seal(Secret(item.value), before.context(item.name))
    return Setting(item.name, item.kind, size, sealed=sealed, mount_path=path)


def _is_same(position: int, item: Given, known: StoredEntry | None, before: Configuration, vault: Vault) -> bool:
    """Whether setting it again changes nothing; a secret that stays keeps its version and its ciphertexts."""
    path = model.check_entry(position, item.name, item.kind, item.value, item.mount_path)
    if known is None or (known.kind, known.mount_path) != (item.kind, path):
        return False
    if known.sealed is None:
        return known.value == item.value
    return vault.open(known.sealed, before.context(item.name)) == Secret(item.value)
