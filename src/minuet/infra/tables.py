"""The one `MetaData` that every slice declares its tables on, and the column types they share.

Separate from `database.py`, so that `outbox.py` can declare its tables and the
database can write them without importing each other.
"""

from __future__ import annotations

import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Moment(sa.TypeDecorator[datetime.datetime]):
    """A moment in UTC; SQLite would lose the zone, so it goes back on when it is read."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("moments carry their zone")
        value = value.astimezone(datetime.UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime.datetime | None:  # noqa: ARG002 - asked for by SQLAlchemy
        if value is None:
            return None
        moment: datetime.datetime = value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value
        return moment.astimezone(datetime.UTC)


BigNumber = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""A 64-bit number; SQLite only counts up by itself a column that is called INTEGER."""
