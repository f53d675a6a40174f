"""An event, and the table in which it waits: what a transaction writes and the outbox reads.

Apart from both, so that the unit of work need not know who delivers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from minuet.infra.tables import BigNumber, Moment, metadata
from minuet.kernel.clock import SystemClock

TABLE = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", BigNumber, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("organization_id", sa.String(40), nullable=True),
    sa.Column("subject", sa.String(200), nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.Column("created_at", Moment, nullable=False, index=True),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that became true: `kind` such as `build.finished`, `subject` the id it is about."""

    kind: str
    organization_id: str | None
    subject: str
    data: dict[str, Any] = field(default_factory=dict)
    id: int = 0

    def row(self) -> dict[str, object]:
        """Returns the columns of a row still without its id."""
        return {
            "kind": self.kind,
            "organization_id": self.organization_id,
            "subject": self.subject,
            "data": json.dumps(self.data),
            "created_at": SystemClock().now(),
        }
