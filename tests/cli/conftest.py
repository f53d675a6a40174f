"""The command line against prepared answers, and against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from minuet.protocol.descriptor import Descriptor, Endpoint
from tests.given import agents, recorded, servers, shops
from tests.given.builders import Builder
from tests.given.command import Command
from tests.given.recorded import Recorded
from tests.given.servers import Server
from tests.given.shops import Shop


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


@pytest.fixture
def shop(owner: Command, real_server: Server) -> Shop:
    """The owner's project with the component `web`, and a builder that builds what it is asked to."""
    builder = Builder(real_server)
    builder.register()
    tenant = servers.Tenant(owner.environment["MINUET_ORGANIZATION"], owner.token, real_server.client(owner.token))
    return shops.shop(tenant, builder)


@pytest.fixture(scope="session")
def deployed(real_server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Command, Shop]:
    """One of each noun, for tests that only read: `web` runs in Development, with a variable and a credential."""
    tenant = servers.tenant(real_server)
    builder = Builder(real_server)
    builder.register()
    shop = shops.shop(tenant, builder)
    shop.call("PATCH", "/environments/development/configuration", 200, json={"set": [{"name": "A", "value": "1"}]})
    credential = {"name": "forge", "kind": "token", "token": "t0ken"}
    assert tenant.client.post(f"{tenant.path}/credentials", json=credential).status_code == 201
    shop.build(Descriptor(endpoints=(Endpoint(name="http", port=8080),)))
    with agents.agent(real_server) as agent:
        agent.project = shop.project
        shop.deploy_ready(agent)
    home = tmp_path_factory.mktemp("reader")
    return Command(home, real_server.url, tenant.token, {"MINUET_ORGANIZATION": tenant.name}), shop
