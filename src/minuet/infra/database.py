"""The unit of work over SQLite and PostgreSQL, with one code path for both.

Slices declare their tables on `metadata` and receive a `Transaction`; only the
edge (a request, a job) opens one and commits. Events emitted in it are rows of
the outbox in the same transaction, and subscribers are woken after the commit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Row, make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from minuet.infra import events
from minuet.infra.tables import metadata
from minuet.kernel.errors import Conflict, Invalid, MinuetError, Unavailable
from minuet.kernel.retry import Backoff

__all__ = ["Database", "Transaction", "TransactionConflict", "metadata"]

BUSY_SECONDS = 10.0
"""How long a writer waits for its turn before it is told `Unavailable`."""

MAX_WAITING_WRITERS = 256
"""Writers that may queue in this process; more are refused at once, so that the wait stays bounded."""

ATTEMPTS = 12
"""Attempts for one unit of work that lost a serialization race (PostgreSQL 40001, 40P01).

Small tables are locked as a whole by what reads them, so that races are lost that nobody ran; with the pauses
between them twelve attempts take some three seconds at most.
"""

STATEMENT_SECONDS = 20
"""No statement and no idle transaction of PostgreSQL lasts longer.

`outbox.GAP_SECONDS` relies on it: a hole in the sequence older than that is a rollback.
"""

_SERIALIZATION = {"40001", "40P01"}
_SQLITE_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA trusted_schema=OFF",
)

Result = TypeVar("Result")


class TransactionConflict(Conflict):
    """Another transaction won; the same work may be tried again as a whole."""

    code = "TransactionConflict"


class Transaction:
    """One open transaction: statements, and the events that leave with its commit."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._events: list[events.Event] = []

    def emit(self, news: events.Event) -> None:
        """Remembers an event; it becomes a row just before the commit."""
        self._events.append(news)

    async def execute(
        self, statement: sa.Executable, rows: Sequence[dict[str, object]] = ()
    ) -> sa.CursorResult[object]:
        """Runs a statement, once for each of `rows` if there are any; raises `Invalid` for values that do not fit."""
        try:
            result: sa.CursorResult[object] = await self.connection.execute(statement, list(rows) or None)
        except (OverflowError, UnicodeError) as error:
            raise _unstorable() from error
        except StatementError as error:
            if isinstance(error, DataError) or isinstance(error.orig, (OverflowError, UnicodeError)):
                raise _unstorable() from error
            raise
        return result

    async def one(self, statement: sa.Executable) -> Row[tuple[object, ...]] | None:
        """Returns the first row, or nothing."""
        row: Row[tuple[object, ...]] | None = (await self.execute(statement)).first()  # type: ignore[assignment]
        return row

    async def all(self, statement: sa.Executable) -> list[Row[tuple[object, ...]]]:
        """Returns every row; the statement bounds how many there are."""
        return list((await self.execute(statement)).all())  # type: ignore[arg-type]

    async def flush_events(self) -> bool:
        """Writes the emitted events; returns whether there were any."""
        if not self._events:
            return False
        await self.execute(sa.insert(events.TABLE), [item.row() for item in self._events])
        self._events.clear()
        return True


class Database:
    """The pool of connections, the queue of writers, and the bus that events leave by."""

    def __init__(self, writers: AsyncEngine, readers: AsyncEngine) -> None:
        self.writers = writers
        self.readers = readers
        self.is_sqlite = writers.dialect.name == "sqlite"
        self.committed: list[Callable[[], None]] = []
        self.failed: list[Callable[[], None]] = []
        self._is_broken = False
        self._waiting = 0

    @classmethod
    def open(cls, url: str, *, connections: int = 10) -> Database:
        """Returns a database for `sqlite:///path` or `postgresql://...`; connects on first use."""
        target = async_url(url)
        if target.get_backend_name() == "sqlite":
            # One writer connection: SQLite has one writer anyway, and waiting here is fair where its busy handler is not.
            return cls(_sqlite_engine(target, "BEGIN IMMEDIATE", 1), _sqlite_engine(target, "BEGIN", 4))
        engine = _postgres_engine(target, connections)
        return cls(engine, engine)

    async def close(self) -> None:
        await self.writers.dispose()
        if self.readers is not self.writers:
            await self.readers.dispose()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Opens a writing transaction: commits at the end, rolls back on an error.

        Raises `TransactionConflict` when another one won (see `run`), and
        `Unavailable` when the database cannot be had in time.
        """
        with self._queued(), self._watched(), translated():
            async with self.writers.connect() as connection, connection.begin():
                transaction = Transaction(connection)
                yield transaction
                has_news = await transaction.flush_events()
        if has_news:
            for wake in self.committed:
                wake()

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[Transaction]:
        """Opens a transaction that sees one state of the database and cannot change it."""
        with translated():
            async with self.readers.connect() as connection:
                if not self.is_sqlite:
                    await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                async with connection.begin() as begun:
                    try:
                        yield Transaction(connection)
                    finally:
                        await begun.rollback()

    async def run(
        self, work: Callable[[Transaction], Awaitable[Result]], *, races: tuple[type[Exception], ...] = ()
    ) -> Result:
        """Runs `work` in a transaction of its own, again if it lost a race; it must be repeatable.

        `races` are further errors that mean a lost race, such as `IntegrityError` where several make the same row.
        """
        lost: tuple[type[Exception], ...] = (TransactionConflict, *races)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self.transaction() as transaction:
                    return await work(transaction)
            except lost:
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(retry_delay(attempt))
        raise AssertionError("the last attempt returns or raises")

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """After a failed write to disk nothing is acknowledged any more: the pages it was about may be
        lost although a later sync succeeds (PostgreSQL's "fsyncgate"). Only a new process reads what is there.
        """
        if self._is_broken:
            raise Unavailable("the disk of the database failed; the server restarts", code="StorageFailed")
        try:
            yield
        except Unavailable as error:
            if error.code == "StorageFailed":
                self._is_broken = True
                for tell in self.failed:
                    tell()
            raise

    @contextlib.contextmanager
    def _queued(self) -> Iterator[None]:
        if self._waiting >= MAX_WAITING_WRITERS:
            raise Unavailable("too many writers are waiting for the database", hint="try again in a few seconds")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1


def async_url(url: str) -> URL:
    """Returns the URL with the asynchronous driver of its kind of database."""
    target = make_url(url)
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}
    return target.set(drivername=drivers[target.get_backend_name()])


def retry_delay(attempt: int) -> float:
    """Seconds before a lost race is run again."""
    return Backoff(base=0.01, cap=0.5).delay(attempt)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns what the drivers raise into the error family; constraint violations stay for the stores."""
    try:
        yield
    except (IntegrityError, MinuetError):
        raise
    except PoolTimeout as error:
        raise Unavailable("the database is busy", hint="try again in a few seconds") from error
    except DBAPIError as error:
        raise _translate(error) from error
    except OSError as error:
        raise Unavailable(f"the database cannot be reached: {error}") from error


def _unstorable() -> Invalid:
    # A last net: what people give is checked where it comes in, and named by its field there.
    return Invalid("a value cannot be stored: it is too large, or holds a character that no database keeps")


def _translate(error: DBAPIError) -> MinuetError:
    if getattr(error.orig, "sqlstate", None) in _SERIALIZATION:
        return TransactionConflict("another change was made at the same time", hint="try again")
    text = str(error.orig)
    if "locked" in text or "busy" in text:
        return Unavailable("the database is busy", hint="try again in a few seconds")
    if "is full" in text or getattr(error.orig, "sqlstate", None) == "53100":
        return Unavailable("the disk of the database is full", code="DiskFull", hint="free space on it")
    if "disk I/O error" in text or getattr(error.orig, "sqlstate", None) == "58030":
        return Unavailable("the disk of the database failed", code="StorageFailed", hint="check the disk")
    return Unavailable(f"the database does not answer as it should: {text.splitlines()[0][:200] if text else ''}")


def _sqlite_engine(url: URL, begin: str, connections: int) -> AsyncEngine:
    # With isolation_level None the driver issues no BEGIN of its own, which would be DEFERRED,
    # come too late for SELECT, and deadlock two writers that both read first.
    engine = create_async_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=BUSY_SECONDS,
        connect_args={"isolation_level": None, "timeout": BUSY_SECONDS},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: object, _entry: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        for pragma in _SQLITE_PRAGMAS:
            cursor.execute(pragma)
        if begin == "BEGIN":
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def start(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _postgres_engine(url: URL, connections: int) -> AsyncEngine:
    milliseconds = STATEMENT_SECONDS * 1000
    limits = f"-c statement_timeout={milliseconds} -c idle_in_transaction_session_timeout={milliseconds}"
    return create_async_engine(
        url,
        isolation_level="SERIALIZABLE",
        pool_size=connections,
        max_overflow=0,
        pool_timeout=BUSY_SECONDS,
        pool_pre_ping=True,
        connect_args={"options": f"{limits} -c lock_timeout={milliseconds // 2}", "connect_timeout": 5},
    )
