"""Routes of tokens and of `me`, and the dependency that tells every slice who calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import Field, StrictBool

import minuet
from minuet.control.identity import service, store
from minuet.control.identity.model import Caller, Role, Token
from minuet.kernel.clock import Clock
from minuet.kernel.errors import Forbidden, NotFound, invalid_field
from minuet.kernel.names import MAX_NAME
from minuet.kernel.secrets import Secret
from minuet.web import etags, routing
from minuet.web.etags import IfMatch
from minuet.web.models import Input, Listing, Model, Moment, Timestamp
from minuet.web.paging import Paging
from minuet.web.routing import Tx

_READS = ("GET", "HEAD")

OrganizationName = Annotated[str, Path(max_length=MAX_NAME, description="Name of the organization.")]
TokenName = Annotated[str, Path(max_length=MAX_NAME, description="Id or name of the token.")]


class Me(Model):
    """Who the token stands for."""

    organization: str | None
    operator: bool
    read_only: bool
    token_name: str
    role: Role
    server_version: str


class TokenBody(Model):
    """A token, without its text."""

    id: str
    name: str
    role: Role
    read_only: bool
    created_at: Timestamp
    expires_at: Timestamp | None = None
    last_used_at: Timestamp | None = None


class NewTokenBody(TokenBody):
    """A token that was just made; `token` is shown this once."""

    token: str


class TokenInput(Input):
    """What a new token is to be."""

    name: str = Field(max_length=MAX_NAME, examples=["ci"])
    read_only: StrictBool = False
    operator: StrictBool = Field(False, description="Whether it operates the platform; only an operator makes one.")
    expires_at: Moment | None = Field(None, description="When it stops working; never, if left out.")

    def role(self) -> Role:
        """Returns what the token is to be; raises `Invalid` for an operator that may only read."""
        if self.operator and self.read_only:
            raise invalid_field("readOnly", "cannot be given together with operator")
        if self.operator:
            return Role.OPERATOR
        return Role.READER if self.read_only else Role.OWNER


@dataclass(frozen=True, slots=True)
class Scope:
    """The organization a request is about, which is always the caller's own."""

    organization_id: str
    organization: str
    caller: Caller


def current(request: Request) -> Caller:
    """Returns who calls; a token that may only read is refused for everything but reading."""
    caller: Caller = request.state.caller
    if request.method not in _READS:
        caller.may_write()
    return caller


CurrentCaller = Annotated[Caller, Depends(current)]


def in_organization(organization: OrganizationName, caller: CurrentCaller) -> Scope:
    """Returns the scope of a request; another organization than the caller's own does not exist for it."""
    if caller.role in (Role.BUILDER, Role.AGENT):
        raise Forbidden(f"the credential of a {caller.role} reaches only its own routes", code="WrongCredential")
    if caller.organization_id is None or organization != caller.organization:
        raise NotFound(
            f"there is no organization {organization}", code="OrganizationNotFound", hint="GET /api/v1/me names yours"
        )
    return Scope(organization_id=caller.organization_id, organization=organization, caller=caller)


Scoped = Annotated[Scope, Depends(in_organization)]
"""The organization of the path, checked against the caller. Every query below it is scoped by its id."""


def router(clock: Clock) -> APIRouter:
    """Returns the routes of this slice, below `/api/v1`."""
    routes = routing.router(tags=["identity"])

    @routes.get("/me")
    async def get_me(caller: CurrentCaller) -> Me:
        """Tells who the token stands for, and which version answers."""
        return Me(
            organization=caller.organization,
            operator=caller.operator,
            read_only=caller.read_only,
            token_name=caller.name,
            role=caller.role,
            server_version=minuet.__version__,
        )

    @routes.post("/organizations/{organization}/tokens", status_code=201)
    async def create_token(scope: Scoped, body: TokenInput, tx: Tx) -> NewTokenBody:
        """Makes a token. Its text is in this answer and nowhere else."""
        if body.operator:
            scope.caller.must_operate()
        token, secret = await service.create_token(
            tx,
            name=body.name,
            role=body.role(),
            now=clock.now(),
            organization_id=scope.organization_id,
            organization=scope.organization,
            expires_at=body.expires_at,
        )
        return new_token_body(token, secret)

    @routes.get("/organizations/{organization}/tokens")
    async def list_tokens(scope: Scoped, page: Paging, tx: Tx) -> Listing[TokenBody]:
        """Lists the organization's tokens, without their text."""
        rows = await store.listed(tx, scope.organization_id, page.after, page.fetch)
        shown, following = page.cut(rows, lambda token: token.id)
        return Listing(items=[_body(token) for token in shown], next=following)

    @routes.get("/organizations/{organization}/tokens/{token}")
    async def get_token(scope: Scoped, token: TokenName, tx: Tx, response: Response) -> TokenBody:
        """Shows one token, without its text. Its use does not change the ETag."""
        found = await service.get_token(tx, scope.organization_id, token)
        etags.put(response, _tagged(found))
        return _body(found)

    @routes.delete("/organizations/{organization}/tokens/{token}", status_code=204)
    async def revoke_token(scope: Scoped, token: TokenName, tx: Tx, if_match: IfMatch = None) -> None:
        """Revokes a token."""
        found = await service.get_token(tx, scope.organization_id, token)
        etags.check(if_match, _tagged(found))
        await service.revoke_token(tx, found, scope.caller, clock.now())

    return routes


def new_token_body(token: Token, secret: Secret) -> NewTokenBody:
    """Returns the one answer that shows a token's text."""
    return NewTokenBody(**_body(token).model_dump(), token=secret.reveal())


def _tagged(token: Token) -> TokenBody:
    """What the ETag speaks of: a token that was used meanwhile is still the same."""
    return _body(token).model_copy(update={"last_used_at": None})


def _body(token: Token) -> TokenBody:
    return TokenBody(
        id=token.id,
        name=token.name,
        role=token.role,
        read_only=token.role is Role.READER,
        created_at=token.created_at,
        expires_at=token.expires_at,
        last_used_at=token.last_used_at,
    )
