"""Routes of organizations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from minuet.control.identity import service as identity
from minuet.control.identity.api import CurrentCaller, NewTokenBody, OrganizationName, new_token_body
from minuet.control.identity.model import Role
from minuet.control.tenancy import service, store
from minuet.control.tenancy.model import Organization
from minuet.kernel.clock import Clock
from minuet.kernel.errors import NotFound
from minuet.kernel.names import MAX_DISPLAY_NAME, MAX_NAME
from minuet.web import etags, routing
from minuet.web.etags import IfMatch
from minuet.web.models import Input, Listing, Model, Moment, Timestamp
from minuet.web.paging import Paging
from minuet.web.routing import Tx


class OrganizationBody(Model):
    """An organization."""

    id: str
    name: str
    display_name: str
    created_at: Timestamp


class NewOrganizationBody(OrganizationBody):
    """An organization that was just made; `ownerToken` is shown this once."""

    owner_token: str


class OrganizationInput(Input):
    """What a new organization is to be."""

    name: str = Field(max_length=MAX_NAME, examples=["acme"])
    display_name: str | None = Field(None, max_length=MAX_DISPLAY_NAME)


class RecoveryTokenInput(Input):
    """What an owner's token that an operator makes is to be."""

    name: str = Field(max_length=MAX_NAME, examples=["recovery"])
    expires_at: Moment | None = Field(None, description="When it stops working; never, if left out.")


async def _visible(caller: CurrentCaller, organization: OrganizationName, tx: Tx) -> Organization:
    """Returns the caller's own organization, any one for an operator; others do not exist."""
    found = await store.by_name(tx, organization)
    if found is None or not (caller.operator or caller.organization_id == found.id):
        raise NotFound(f"there is no organization {organization}", code="OrganizationNotFound")
    return found


VisibleOrganization = Annotated[Organization, Depends(_visible)]


async def _operated(caller: CurrentCaller, found: VisibleOrganization) -> Organization:
    caller.must_operate()
    return found


OperatedOrganization = Annotated[Organization, Depends(_operated)]
"""An organization in the hands of an operator."""


def router(clock: Clock, founders: Sequence[service.Founder], closers: Sequence[service.Closer]) -> APIRouter:
    """Returns the routes of this slice, below `/api/v1`."""
    routes = routing.router("/organizations", tags=["organizations"])

    @routes.post("", status_code=201)
    async def create_organization(caller: CurrentCaller, body: OrganizationInput, tx: Tx) -> NewOrganizationBody:
        """Makes an organization, its first token, environments and pipeline. For operators."""
        caller.must_operate()
        now = clock.now()
        made = await service.create_organization(tx, body.name, body.display_name, now=now, founders=founders)
        secret = await service.create_owner_token(tx, made, now)
        return NewOrganizationBody(**_body(made).model_dump(), owner_token=secret.reveal())

    @routes.get("")
    async def list_organizations(caller: CurrentCaller, page: Paging, tx: Tx) -> Listing[OrganizationBody]:
        """Lists the caller's organization; operators see the names of all."""
        only = None if caller.operator else caller.organization_id or ""
        rows = await store.listed(tx, only, page.after, page.fetch)
        shown, following = page.cut(rows, lambda organization: organization.name)
        return Listing(items=[_body(organization) for organization in shown], next=following)

    @routes.get("/{organization}")
    async def get_organization(found: VisibleOrganization, response: Response) -> OrganizationBody:
        """Shows one organization."""
        body = _body(found)
        etags.put(response, body)
        return body

    @routes.post("/{organization}/recovery-tokens", status_code=201)
    async def create_recovery_token(found: OperatedOrganization, body: RecoveryTokenInput, tx: Tx) -> NewTokenBody:
        """Makes an owner's token for an organization that lost its own. For operators."""
        token, secret = await identity.create_token(
            tx,
            name=body.name,
            role=Role.OWNER,
            now=clock.now(),
            organization_id=found.id,
            organization=found.name,
            expires_at=body.expires_at,
        )
        return new_token_body(token, secret)

    @routes.delete("/{organization}", status_code=204)
    async def delete_organization(found: OperatedOrganization, tx: Tx, if_match: IfMatch = None) -> None:
        """Removes an organization that has no projects and credentials, with its tokens. For operators."""
        etags.check(if_match, _body(found))
        await service.delete_organization(tx, found, closers)

    return routes


def _body(organization: Organization) -> OrganizationBody:
    return OrganizationBody(
        id=organization.id,
        name=organization.name,
        display_name=organization.display_name,
        created_at=organization.created_at,
    )
