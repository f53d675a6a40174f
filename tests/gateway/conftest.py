"""Gateways for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.given.gateway import Gateway, table
from tests.given.upstream import Upstream


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway of its own, for a test that breaks it."""
    made = Gateway(tmp_path)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Upstream]]:
    """One gateway in front of one application, for all tests of a file that only ask."""
    gateway = Gateway(tmp_path_factory.mktemp("edge"))
    with Upstream() as upstream:
        gateway.apply(table(upstream.port))
        yield gateway, upstream
    gateway.stop()
