"""Real server processes, one on each database, for all API tests of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.given import agents, postgres, servers, shops
from tests.given.agents import Agent
from tests.given.builders import Builder
from tests.given.servers import Server, Tenant
from tests.given.shops import Shop


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("server")
    if request.param == "sqlite":
        with servers.running(data, servers.free_port()) as started:
            yield started
        return
    if not postgres.is_installed():
        pytest.skip("PostgreSQL is not installed")
    with postgres.cluster() as prefix:
        storage = postgres.create_database(prefix, "minuet")
        with servers.running(data, servers.free_port(), storage) as started:
            yield started


@pytest.fixture
def tenant(server: Server) -> Tenant:
    return servers.tenant(server)


@pytest.fixture
def shop(server: Server, tenant: Tenant) -> Shop:
    builder = Builder(server)
    builder.register()
    return shops.shop(tenant, builder)


@pytest.fixture
def agent(server: Server, shop: Shop) -> Iterator[Agent]:
    with agents.agent(server) as connected:
        connected.project = shop.project
        yield connected
