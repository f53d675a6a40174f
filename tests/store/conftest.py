"""Both databases for the store suite: a SQLite file, and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from minuet.infra.database import Database
from minuet.server import migrations, wiring  # noqa: F401 - wiring declares every other table
from tests.given import postgres, servers


@pytest.fixture(scope="session")
def postgres_prefix() -> Iterator[str]:
    if not postgres.is_installed():
        pytest.skip("PostgreSQL is not installed")
    with postgres.cluster() as prefix:
        yield prefix


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'minuet.db'}"
    return postgres.create_database(request.getfixturevalue("postgres_prefix"), servers.unique("db"))


@pytest.fixture
async def empty(database_url: str) -> AsyncIterator[Database]:
    opened = Database.open(database_url, connections=8)
    yield opened
    await opened.close()


@pytest.fixture
async def database(empty: Database, tmp_path: Path) -> Database:
    await migrations.upgrade(empty, backups=tmp_path / "backups")
    return empty
