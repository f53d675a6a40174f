"""Two servers on one PostgreSQL are one control plane."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import websockets

from minuet.control.delivery import service as delivery
from minuet.control.identity import service as identity
from minuet.control.identity.model import Role
from minuet.control.planes import store
from minuet.infra.database import Database
from minuet.kernel.clock import SystemClock
from minuet.kernel.errors import Conflict
from minuet.protocol.frames import Desired, Hello, Welcome, parse_frame
from minuet.protocol.observed import PlaneReport
from minuet.protocol.sealing import new_sealing_key, sealing_public_key
from minuet.server import first_start, keys, migrations
from minuet.server.keys import Keys
from minuet.server.settings import ServerSettings
from minuet.server.wiring import ControlPlane
from tests.given import planes, postgres, rows, servers

pytestmark = pytest.mark.postgres
SECONDS = 10
REPORT = PlaneReport(isolation="sandbox", gateway_ready=True, gateway_url="http://127.0.0.1:1", agent_version="1")


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[tuple[ControlPlane, ControlPlane]]:
    if not postgres.is_installed():
        pytest.skip("PostgreSQL is not installed")
    with postgres.cluster() as prefix:
        url = postgres.create_database(prefix, "minuet")
        data = tmp_path / "server"
        async with (
            planes.served(data, url, servers.free_port()) as one,
            planes.served(data, url, servers.free_port()) as two,
        ):
            yield one, two


def dial(plane: ControlPlane) -> websockets.connect:
    token = (plane.settings.data / "credentials" / "agent.token").read_text().strip()
    address = f"ws://127.0.0.1:{plane.settings.listen.port}/api/v1/planes/default/link"
    return websockets.connect(address, additional_headers={"Authorization": f"Bearer {token}"}, proxy=None)


async def greet(link: websockets.ClientConnection) -> int:
    key = sealing_public_key(new_sealing_key())
    await link.send(Hello(plane="default", epoch=1, revision=0, sealing_key=key, report=REPORT).wire())
    welcome = parse_frame(await asyncio.wait_for(link.recv(), SECONDS))
    assert isinstance(welcome, Welcome)
    return welcome.session


async def test_what_one_replica_appends_the_other_pushes(replicas: tuple[ControlPlane, ControlPlane]) -> None:
    one, two = replicas
    async with one.database.reading() as tx:
        row = await store.plane_by_name(tx, "default")
    assert row is not None
    async with dial(two) as link:
        await greet(link)
        started = asyncio.get_running_loop().time()
        document = planes.workload("cmp/env")
        await one.database.run(lambda tx: one.links.desired.append(tx, row.id, [document], organization_id="org_1"))
        frame = parse_frame(await asyncio.wait_for(link.recv(), SECONDS))
        assert isinstance(frame, Desired)
        assert asyncio.get_running_loop().time() - started < 2.5


async def test_a_session_at_one_replica_ends_the_older_one_at_the_other(
    replicas: tuple[ControlPlane, ControlPlane],
) -> None:
    one, two = replicas
    async with dial(one) as older, dial(two) as newer:
        first = await greet(older)
        second = await greet(newer)
        assert second > first
        async with asyncio.timeout(SECONDS):
            await older.wait_closed()
        assert older.close_code == 4409
        async with one.database.reading() as tx:
            row = await store.plane_by_name(tx, "default")
        assert row is not None
        assert (row.connected, row.session) == (True, second)
        assert newer.close_code is None


async def test_a_create_repeated_at_the_other_replica_gives_the_first_answer(
    replicas: tuple[ControlPlane, ControlPlane],
) -> None:
    import httpx2

    one, two = replicas
    token = (one.settings.data / "owner.token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k"}
    answers = []
    async with httpx2.AsyncClient(trust_env=False, headers=headers) as client:
        for plane in (one, two):
            address = f"http://127.0.0.1:{plane.settings.listen.port}/api/v1/organizations/default/tokens"
            answers.append((await client.post(address, json={"name": "ci"})).json())
    assert answers[0] == answers[1]
    assert answers[0]["token"].startswith("mno_")


async def test_a_replica_without_the_link_says_where_it_is(replicas: tuple[ControlPlane, ControlPlane]) -> None:
    import httpx2

    one, two = replicas
    token = (one.settings.data / "owner.token").read_text().strip()
    async with httpx2.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {token}"}) as client:
        made = await rows.world(one.database, "links", first=False)
        async with one.database.transaction() as tx:
            await rows.register(tx, "one")
        await rows.built(one.database, made)
        async with one.database.transaction() as tx:
            await delivery.deploy(tx, made.request())
            _, secret = await identity.create_token(
                tx,
                name="reader",
                role=Role.READER,
                now=one.clock.now(),
                organization_id=made.organization.id,
                organization="links",
            )
        client.headers["Authorization"] = f"Bearer {secret.reveal()}"
        path = "/api/v1/organizations/links/projects/shop/components/web/environments/development/logs"
        async with dial(one) as link:
            await greet(link)
            answer = await client.get(f"http://127.0.0.1:{two.settings.listen.port}{path}")
            assert (answer.status_code, answer.json()["code"]) == (503, "LinkElsewhere")
        async with asyncio.timeout(SECONDS):
            while answer.json()["code"] != "DataPlaneNotConnected":
                answer = await client.get(f"http://127.0.0.1:{two.settings.listen.port}{path}")


async def test_replicas_that_start_together_for_the_first_time_agree(tmp_path: Path) -> None:
    if not postgres.is_installed():
        pytest.skip("PostgreSQL is not installed")
    with postgres.cluster() as prefix:
        url = postgres.create_database(prefix, "minuet")
        databases = [Database.open(url, connections=4) for _ in range(3)]
        settings = ServerSettings(data=tmp_path / "shared")
        settings.data.mkdir()
        await migrations.upgrade(databases[0], backups=tmp_path)

        async def start(database: Database) -> Keys:
            own = await keys.open_(settings.data, database)
            await first_start.prepare(settings, database, SystemClock())
            return own

        started = await asyncio.gather(*(start(database) for database in databases))
        assert len({str(item.ids) for item in started}) == 1
        with pytest.raises(Conflict, match="missing") as caught:
            await keys.open_(tmp_path / "elsewhere", databases[0])
        assert caught.value.code == "WrongKeys"
        assert not (tmp_path / "elsewhere").exists()
        for database in databases:
            await database.close()
