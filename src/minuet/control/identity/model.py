"""Callers and tokens: what a credential may do, decided without a database."""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass

from minuet.kernel.errors import Forbidden


class Role(enum.StrEnum):
    """What kind of credential it is; builders and agents reach only their own part of the API."""

    OWNER = "owner"
    READER = "reader"
    OPERATOR = "operator"
    BUILDER = "builder"
    AGENT = "agent"


PREFIXES = {
    Role.OWNER: "mno",
    Role.READER: "mnr",
    Role.OPERATOR: "mnp",
    Role.BUILDER: "mnb",
    Role.AGENT: "mna",
}
"""Prefix of a role's tokens, so that a leaked one is recognised by scanners and by people."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes this request. Builders and agents have no organization; agents have a plane."""

    token_id: str
    organization_id: str | None
    organization: str | None
    operator: bool
    read_only: bool
    name: str = ""
    role: Role = Role.OWNER
    plane_id: str | None = None

    def may_write(self) -> None:
        """Raises `Forbidden` for a read-only token."""
        if self.read_only:
            raise Forbidden(
                f"the token {self.name} may only read", code="ReadOnlyToken", hint="use a token that may write"
            )

    def must_operate(self) -> None:
        """Raises `Forbidden` unless the caller operates the platform."""
        if not self.operator:
            raise Forbidden("only an operator of the platform may do this", code="OperatorOnly")

    def must_be(self, role: Role) -> None:
        """Raises `Forbidden` for credentials of another kind."""
        if self.role is not role:
            raise Forbidden(f"this needs a credential of a {role}", code="WrongCredential")


@dataclass(frozen=True, slots=True)
class Token:
    """A credential as it is stored: only the hash of the text exists here."""

    id: str
    organization_id: str | None
    name: str
    role: Role
    plane_id: str | None
    created_at: datetime.datetime
    expires_at: datetime.datetime | None
    revoked_at: datetime.datetime | None
    last_used_at: datetime.datetime | None

    def is_valid(self, now: datetime.datetime) -> bool:
        """Whether it still opens anything."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)
