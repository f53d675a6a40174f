"""Routes of credentials for private repositories; their values go in and never come out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field

from minuet.control.catalog import service, store
from minuet.control.catalog.model import Credential, CredentialKind
from minuet.control.identity.api import Scoped
from minuet.infra.vault import Vault
from minuet.kernel.clock import Clock
from minuet.kernel.errors import invalid_field
from minuet.kernel.names import MAX_DISPLAY_NAME, MAX_NAME
from minuet.kernel.secrets import Secret
from minuet.web import etags, routing
from minuet.web.etags import IfMatch
from minuet.web.models import CONFIDENTIAL, Input, Listing, Model, Timestamp
from minuet.web.paging import Paging
from minuet.web.routing import Tx

Token = Annotated[str, Field(max_length=service.MAX_TOKEN, json_schema_extra={"writeOnly": True}), CONFIDENTIAL]
DeployKey = Annotated[
    str, Field(max_length=service.MAX_DEPLOY_KEY, json_schema_extra={"writeOnly": True}), CONFIDENTIAL
]
_FIELDS = {CredentialKind.TOKEN: "token", CredentialKind.DEPLOY_KEY: "deployKey"}
CredentialName = Annotated[str, Path(max_length=MAX_NAME, description="Name of the credential.")]


class CredentialBody(Model):
    """A credential, without its value."""

    id: str
    name: str
    display_name: str
    kind: CredentialKind
    username: str
    created_at: Timestamp
    updated_at: Timestamp


class CredentialInput(Input):
    """What a new credential is to be: a token with its user name, or the private key of a deploy key."""

    name: str = Field(max_length=MAX_NAME, examples=["forge"])
    display_name: str | None = Field(None, max_length=MAX_DISPLAY_NAME)
    kind: CredentialKind
    username: str = Field("git", max_length=200)
    token: Token | None = None
    deploy_key: DeployKey | None = None


class CredentialChange(Input):
    """What is to change about a credential; what is left out stays, a new value replaces the old one at once."""

    display_name: str | None = Field(None, max_length=MAX_DISPLAY_NAME)
    username: str | None = Field(None, max_length=200)
    token: Token | None = None
    deploy_key: DeployKey | None = None


def router(clock: Clock, vault: Vault) -> APIRouter:
    """Returns the routes of this file, below `/api/v1`."""
    routes = routing.router("/organizations/{organization}/credentials", tags=["credentials"])

    @routes.post("", status_code=201)
    async def create_credential(scope: Scoped, body: CredentialInput, tx: Tx) -> CredentialBody:
        """Makes a credential for private repositories. Its value is never shown again."""
        made = await service.create_credential(
            tx,
            scope.organization_id,
            body.name,
            display_name=body.display_name,
            kind=body.kind,
            username=body.username,
            value=_required(_value(body.kind, body), body.kind),
            vault=vault,
            now=clock.now(),
        )
        return _credential_body(made)

    @routes.get("")
    async def list_credentials(scope: Scoped, page: Paging, tx: Tx) -> Listing[CredentialBody]:
        """Lists credentials by name, without their values."""
        rows = await store.credentials(tx, scope.organization_id, page.after, page.fetch)
        shown, following = page.cut(rows, lambda credential: credential.name)
        return Listing(items=[_credential_body(credential) for credential in shown], next=following)

    @routes.get("/{credential}")
    async def get_credential(scope: Scoped, credential: CredentialName, tx: Tx, response: Response) -> CredentialBody:
        """Shows one credential, without its value."""
        body = _credential_body(await service.get_credential(tx, scope.organization_id, credential))
        etags.put(response, body)
        return body

    @routes.patch("/{credential}")
    async def change_credential(
        *,
        scope: Scoped,
        credential: CredentialName,
        body: CredentialChange,
        tx: Tx,
        response: Response,
        if_match: IfMatch = None,
    ) -> CredentialBody:
        """Replaces value, user name or display name, also while components use it. Name and kind never change."""
        found = await service.get_credential(tx, scope.organization_id, credential)
        etags.check(if_match, _credential_body(found))
        changed = await service.change_credential(
            tx,
            found,
            display_name=body.display_name,
            username=body.username,
            value=_value(found.kind, body),
            vault=vault,
            now=clock.now(),
        )
        shown = _credential_body(changed)
        etags.put(response, shown)
        return shown

    @routes.delete("/{credential}", status_code=204)
    async def delete_credential(scope: Scoped, credential: CredentialName, tx: Tx, if_match: IfMatch = None) -> None:
        """Removes a credential that no component uses."""
        found = await service.get_credential(tx, scope.organization_id, credential)
        etags.check(if_match, _credential_body(found))
        await service.delete_credential(tx, scope.organization_id, credential)

    return routes


def _value(kind: CredentialKind, body: CredentialInput | CredentialChange) -> Secret | None:
    """Returns the value that fits the kind, if there is one; raises `Invalid` for one of the other kind."""
    given = {CredentialKind.TOKEN: body.token, CredentialKind.DEPLOY_KEY: body.deploy_key}
    for other, value in given.items():
        if other is not kind and value is not None:
            raise invalid_field(
                _FIELDS[other], f"is not for a credential of the kind {kind}", hint=f"give {_FIELDS[kind]} instead"
            )
    value = given[kind]
    return None if value is None else Secret(value)


def _required(value: Secret | None, kind: CredentialKind) -> Secret:
    if value is None:
        raise invalid_field(_FIELDS[kind], f"is required for a credential of the kind {kind}")
    return value


def _credential_body(credential: Credential) -> CredentialBody:
    return CredentialBody(
        id=credential.id,
        name=credential.name,
        display_name=credential.display_name,
        kind=credential.kind,
        username=credential.username,
        created_at=credential.created_at,
        updated_at=credential.updated_at,
    )
