"""Use-cases of organizations. Slices above add what a new one needs through `Founder`s."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable, Sequence

from minuet.control.identity import service as identity
from minuet.control.identity import store as tokens
from minuet.control.identity.model import Role
from minuet.control.tenancy import store
from minuet.control.tenancy.model import DEFAULT, Organization
from minuet.infra.database import Transaction
from minuet.infra.events import Event
from minuet.kernel.errors import Conflict
from minuet.kernel.ids import new_id
from minuet.kernel.names import check_name, check_text
from minuet.kernel.secrets import Secret

Founder = Callable[[Transaction, Organization], Awaitable[None]]
"""Adds to a new organization what a slice wants each to have, in the same transaction."""

Closer = Callable[[Transaction, Organization], Awaitable[None]]
"""Takes from an organization that goes what a slice gave it; raises `Conflict` (`InUse`) for what people made in it."""

OWNER_TOKEN = "owner"  # noqa: S105 - the name of the token, not its text


async def create_organization(
    tx: Transaction, name: str, display_name: str | None, *, now: datetime.datetime, founders: Sequence[Founder]
) -> Organization:
    """Makes an organization with what the founders add to it."""
    check_name("name", name)
    shown = check_text("displayName", display_name or name)
    if await store.by_name(tx, name) is not None:
        raise Conflict(f"there is an organization {name} already", code="AlreadyExists", hint="choose another name")
    organization = Organization(new_id("org"), name, shown, now)
    await store.insert(tx, organization)
    for found in founders:
        await found(tx, organization)
    tx.emit(Event("organization.created", organization.id, organization.id, {"name": name}))
    return organization


async def delete_organization(tx: Transaction, organization: Organization, closers: Sequence[Closer]) -> None:
    """Removes an empty organization with its tokens; raises `Conflict` (`InUse`) for one that is not empty."""
    if organization.name == DEFAULT:
        raise Conflict(
            f"{DEFAULT} is the organization of the platform's operators", code="InUse", hint="delete what is in it"
        )
    for close in closers:
        await close(tx, organization)
    await tokens.delete_all(tx, organization.id)
    await store.delete(tx, organization.id)
    tx.emit(Event("organization.deleted", None, organization.id, {"name": organization.name}))


async def create_owner_token(tx: Transaction, organization: Organization, now: datetime.datetime) -> Secret:
    """Makes the first token of an organization."""
    _, secret = await identity.create_token(
        tx,
        name=OWNER_TOKEN,
        role=Role.OWNER,
        now=now,
        organization_id=organization.id,
        organization=organization.name,
    )
    return secret
