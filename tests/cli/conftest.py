"""The command line against prepared answers, and against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.given import recorded, servers
from tests.given.command import Command
from tests.given.recorded import Recorded
from tests.given.servers import Server


@pytest.fixture
def server() -> Iterator[Recorded]:
    with recorded.serving() as started:
        yield started


@pytest.fixture
def minuet(tmp_path: Path, server: Recorded) -> Command:
    """Signed in to the server with prepared answers."""
    return Command(tmp_path, server.url)


@pytest.fixture
def stranger(tmp_path: Path) -> Command:
    """Signed in nowhere."""
    return Command(tmp_path)


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with servers.running(tmp_path_factory.mktemp("server"), servers.free_port()) as started:
        yield started


@pytest.fixture
def owner(tmp_path: Path, real_server: Server) -> Command:
    """The owner of an organization of the test's own on a real server."""
    tenant = servers.tenant(real_server)
    return Command(tmp_path, real_server.url, tenant.token, {"MINUET_ORGANIZATION": tenant.name})
