"""Use-cases of tokens: make, recognise, revoke. The routes and the first start call it."""

from __future__ import annotations

import datetime

from minuet.control.identity import store
from minuet.control.identity.model import PREFIXES, Caller, Role, Token
from minuet.infra.database import Database, Transaction
from minuet.infra.events import Event
from minuet.kernel.clock import Clock
from minuet.kernel.errors import Conflict, Exhausted, NotFound, Unauthenticated, invalid_field
from minuet.kernel.ids import new_id
from minuet.kernel.names import check_name
from minuet.kernel.secrets import Secret, new_token, token_hash

MAX_TOKENS = 200
"""Tokens of one organization."""

USED_RESOLUTION = datetime.timedelta(minutes=1)
"""How exact "last used" is; finer would make every read a write."""

MAX_REMEMBERED_USES = 10_000
_WRITING = (Role.OWNER, Role.OPERATOR)


async def create_token(
    tx: Transaction,
    *,
    name: str,
    role: Role,
    now: datetime.datetime,
    organization_id: str | None = None,
    organization: str | None = None,
    plane_id: str | None = None,
    expires_at: datetime.datetime | None = None,
) -> tuple[Token, Secret]:
    """Makes a token and returns it with its text, which exists nowhere else."""
    check_name("name", name)
    if expires_at is not None and expires_at <= now:
        raise invalid_field("expiresAt", "lies in the past", given=expires_at.isoformat())
    if organization_id is not None:
        await _check_room(tx, organization_id, name)
    secret = new_token(PREFIXES[role])
    token = Token(new_id("tok"), organization_id, name, role, plane_id, now, expires_at, None, None)
    await store.insert(tx, token, organization, token_hash(secret.reveal()))
    tx.emit(Event("token.created", organization_id, token.id, {"name": name, "role": role.value}))
    return token, secret


async def _check_room(tx: Transaction, organization_id: str, name: str) -> None:
    if await store.find(tx, organization_id, name) is not None:
        raise Conflict(f"there is a token named {name} already", code="AlreadyExists", hint="choose another name")
    if await store.count(tx, organization_id) >= MAX_TOKENS:
        raise Exhausted(f"an organization has at most {MAX_TOKENS} tokens", hint="revoke one that is not used")


async def get_token(tx: Transaction, organization_id: str, token: str) -> Token:
    """Returns a token of the organization by id or name; raises `NotFound`, also for a revoked one."""
    found = await store.find(tx, organization_id, token)
    if found is None:
        raise NotFound(f"there is no token {token}", code="TokenNotFound", hint="`minuet list tokens` shows them")
    return found


async def revoke_token(tx: Transaction, found: Token, by: Caller, now: datetime.datetime) -> None:
    """Revokes a token; the last valid one that may write, and the last operator's, stay, or nobody could make another."""
    organization_id = found.organization_id
    if organization_id is None:
        raise NotFound("it is not a token of an organization", code="TokenNotFound")
    if found.role is Role.OPERATOR:
        by.must_operate()
    if found.is_valid(now):
        await _check_not_last(tx, organization_id, found.role, now)
    await store.revoke(tx, organization_id, found.id, now)
    tx.emit(Event("token.revoked", organization_id, found.id, {"name": found.name}))


async def _check_not_last(tx: Transaction, organization_id: str, role: Role, now: datetime.datetime) -> None:
    kinds = {Role.OPERATOR: ("of an operator", (Role.OPERATOR,)), Role.OWNER: ("that may write", _WRITING)}
    if role not in kinds:
        return
    what, roles = kinds[role]
    if await store.count_valid(tx, organization_id, roles, now) == 1:
        raise Conflict(f"it is the organization's last valid token {what}", code="LastToken", hint="make another first")


class Authenticator:
    """Recognises bearer tokens, and remembers when each was used until `flush`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._used: dict[str, datetime.datetime] = {}

    async def __call__(self, secret: Secret) -> Caller:
        """Returns who calls; raises `Unauthenticated`, with one message for all that is wrong."""
        now = self._clock.now()
        async with self._database.reading() as tx:
            found = await store.by_hash(tx, token_hash(secret.reveal()))
        if found is None or not found[0].is_valid(now):
            raise Unauthenticated(
                "the token is unknown, expired or revoked",
                code="TokenUnknown",
                hint="`minuet login --server <address>` with a valid one",
            )
        token, organization = found
        if token.last_used_at is None or now - token.last_used_at > USED_RESOLUTION:
            self._remember(token.id, now)
        return Caller(
            token_id=token.id,
            organization_id=token.organization_id,
            organization=organization,
            operator=token.role is Role.OPERATOR,
            read_only=token.role is Role.READER,
            name=token.name,
            role=token.role,
            plane_id=token.plane_id,
        )

    def _remember(self, token_id: str, now: datetime.datetime) -> None:
        if len(self._used) < MAX_REMEMBERED_USES:
            self._used[token_id] = now

    async def flush(self) -> None:
        """Writes down what was used since the last time."""
        used, self._used = self._used, {}
        if used:
            await self._database.run(lambda tx: store.mark_used(tx, used))
