"""Routes of credentials for private repositories; their values go in and never come out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field, model_validator

from minuet.control.catalog import service, store
from minuet.control.catalog.model import Credential, CredentialKind
from minuet.control.identity.api import Scoped
from minuet.infra.vault import Vault
from minuet.kernel.clock import Clock
from minuet.kernel.names import MAX_NAME
from minuet.kernel.secrets import Secret
from minuet.web import etags, routing
from minuet.web.etags import IfMatch
from minuet.web.models import Input, Listing, Model, Timestamp
from minuet.web.paging import Paging
from minuet.web.routing import Tx


class CredentialBody(Model):
    """A credential, without its value."""

    id: str
    name: str
    kind: CredentialKind
    username: str
    created_at: Timestamp


class CredentialInput(Input):
    """What a new credential is to be: a token with its user name, or the private key of a deploy key."""

    name: str = Field(max_length=MAX_NAME, examples=["forge"])
    kind: CredentialKind
    username: str = Field("git", max_length=200)
    token: str | None = Field(None, max_length=service.MAX_TOKEN, json_schema_extra={"writeOnly": True})
    deploy_key: str | None = Field(None, max_length=service.MAX_DEPLOY_KEY, json_schema_extra={"writeOnly": True})

    @model_validator(mode="after")
    def _has_its_value(self) -> CredentialInput:
        given = {CredentialKind.TOKEN: self.token, CredentialKind.DEPLOY_KEY: self.deploy_key}
        if [kind for kind, value in given.items() if value is not None] != [self.kind]:
            field = "deployKey" if self.kind is CredentialKind.DEPLOY_KEY else "token"
            raise ValueError(f"a credential of the kind {self.kind} takes exactly {field}")
        return self

    def value(self) -> Secret:
        """Returns what is to be sealed."""
        return Secret(self.token or self.deploy_key or "")


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
            kind=body.kind,
            username=body.username,
            value=body.value(),
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
    async def get_credential(
        scope: Scoped, credential: Annotated[str, Path(max_length=MAX_NAME)], tx: Tx, response: Response
    ) -> CredentialBody:
        """Shows one credential, without its value."""
        body = _credential_body(await service.get_credential(tx, scope.organization_id, credential))
        etags.put(response, body)
        return body

    @routes.delete("/{credential}", status_code=204)
    async def delete_credential(
        scope: Scoped, credential: Annotated[str, Path(max_length=MAX_NAME)], tx: Tx, if_match: IfMatch = None
    ) -> None:
        """Removes a credential that no component uses."""
        found = await service.get_credential(tx, scope.organization_id, credential)
        etags.check(if_match, _credential_body(found))
        await service.delete_credential(tx, scope.organization_id, credential)

    return routes


def _credential_body(credential: Credential) -> CredentialBody:
    return CredentialBody(
        id=credential.id,
        name=credential.name,
        kind=credential.kind,
        username=credential.username,
        created_at=credential.created_at,
    )
