"""Versions come and go under load, and no request fails."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import websockets

from minuet.gateway.model import RoutingTable
from minuet.kernel.retry import GiveUp
from tests.given.gateway import HOST, Gateway, backend, route, table
from tests.given.load import Load
from tests.given.platform import eventually
from tests.given.upstream import Upstream

pytestmark = pytest.mark.envoy


def _versions(routed: str, **ports: int) -> RoutingTable:
    return RoutingTable((route(routed),), tuple(backend(version, port) for version, port in ports.items()))


def test_a_new_version_takes_over_without_a_failed_request_and_the_old_ends_its_own(gateway: Gateway) -> None:
    with Upstream("old") as old, Upstream("new") as new, ThreadPoolExecutor(4) as pool:
        gateway.apply(_versions("old", old=old.port))
        held = [pool.submit(gateway.get, "/held") for _ in range(4)]
        for _ in held:
            assert old.holding.acquire(timeout=10)
        with Load(gateway.port, HOST, rate=300) as load:
            eventually(lambda: len(load.answers) > 50, what="the load runs")
            gateway.apply(_versions("new", old=old.port, new=new.port))
            moved = len(old.received)
            asked = len(load.answers)
            eventually(lambda: len(load.answers) > asked + 50, what="the load goes on")
            assert gateway.active(backend("old").key) == 4
            old.release.set()
            eventually(lambda: gateway.active(backend("old").key) == 0, what="the old version is idle")
            old.kill()
            gateway.apply(_versions("new", new=new.port))
            asked = len(load.answers)
            eventually(lambda: len(load.answers) > asked + 50, what="the load goes on")
        assert load.failures == []
        assert [(one.result().status, one.result().json()["name"]) for one in held] == [(200, "old")] * 4
        assert len(old.received) - moved <= load.connections


def test_a_websocket_stays_with_the_version_it_began_with_and_is_counted(gateway: Gateway) -> None:
    async def scenario() -> tuple[list[str], int | None, int | None]:
        async with _named("old") as (old, old_port), _named("new") as (_, new_port):
            await asyncio.to_thread(gateway.apply, _versions("old", old=old_port))
            async with _client(gateway) as first:
                said = [str(await _said(first))]
                await asyncio.to_thread(gateway.apply, _versions("new", old=old_port, new=new_port))
                async with _client(gateway) as second:
                    said += [str(await _said(first)), str(await _said(second))]
                    during = await gateway.host.active_requests(backend("old").key)
                old.close()
                await old.wait_closed()
                await first.wait_closed()
                assert first.close_code == 1001  # going away: the application's own goodbye reached the client
            return said, during, await gateway.host.active_requests(backend("old").key)

    said, during, after = asyncio.run(scenario())
    assert said == ["old", "old", "new"]
    assert (during, after) == (1, 0)


@contextlib.asynccontextmanager
async def _named(name: str) -> AsyncIterator[tuple[websockets.Server, int]]:
    async def answer(connection: websockets.ServerConnection) -> None:
        async for _ in connection:
            await connection.send(name)

    async with websockets.serve(answer, "127.0.0.1", 0) as server:
        yield server, next(iter(server.sockets)).getsockname()[1]


def _client(gateway: Gateway) -> websockets.connect:
    return websockets.connect(f"ws://{HOST}/", host="127.0.0.1", port=gateway.port)


async def _said(connection: websockets.ClientConnection) -> websockets.Data:
    await connection.send("who")
    return await asyncio.wait_for(connection.recv(), 10)


def test_instances_are_taken_away_under_load_without_a_failed_request(gateway: Gateway) -> None:
    with Upstream("a") as a, Upstream("b") as b, Upstream("c") as c:
        gateway.apply(table(a.port, b.port))
        with Load(gateway.port, HOST, rate=300) as load:
            for gone, left in ((a, (b, c)), (b, (c,))):
                asked = len(load.answers)
                eventually(lambda asked=asked: len(load.answers) > asked + 50, what="the load goes on")
                draining = backend("one", *(one.port for one in left)).endpoints
                draining += backend("one", gone.port, draining=True).endpoints
                gateway.apply(RoutingTable((route("one"),), (backend("one").__class__(backend("one").key, draining),)))
                count = len(gone.received)
                asked = len(load.answers)
                eventually(lambda asked=asked: len(load.answers) > asked + 50, what="the load goes on")
                assert len(gone.received) - count <= load.connections
                gateway.apply(table(*(one.port for one in left)))
                gone.kill()
        assert load.failures == []


def test_hosts_come_and_go_in_any_order_without_a_moment_in_which_another_fails(gateway: Gateway) -> None:
    """Clusters and routes are read apart; a route must never meet a cluster that is gone already."""
    choose = random.Random(7)
    with Upstream() as upstream:
        every = [f"host-{number}.localhost" for number in range(12)]

        def made(hosts: list[str], version: str) -> RoutingTable:
            routes = tuple(route(f"{version}-{host}", host=host, owner=host) for host in hosts)
            names = [rule.backend.rpartition("@")[2] for rule in routes]
            return RoutingTable(routes, tuple(backend(name, upstream.port) for name in names))

        gateway.apply(made(every, "v0"))
        with Load(gateway.port, every[0], rate=400, connections=16) as load:
            for number in range(1, 61):
                kept = [every[0], *choose.sample(every[1:], choose.randint(0, 11))]
                gateway.apply(made(kept, f"v{number}"), removed=frozenset(every))
        assert load.failures == []
        assert len(load.answers) > 100


def test_many_waiting_callers_are_served_one_after_the_other(gateway: Gateway) -> None:
    with Upstream() as upstream:
        gateway.apply(table(upstream.port))

        async def all_at_once() -> None:
            tables = [table(upstream.port, base_path=f"/v{number}") for number in range(10)]
            await asyncio.gather(*(gateway.host.apply(one) for one in tables))

        asyncio.run(all_at_once())
        assert gateway.get("/v9/x").status == 200
        assert gateway.get("/v8/x").status == 404


def test_an_applied_table_is_in_force_when_apply_returns(gateway: Gateway) -> None:
    with Upstream("a") as a, Upstream("b") as b:
        gateway.apply(_versions("a", a=a.port, b=b.port))
        for number in range(60):
            name = "ab"[number % 2]
            gateway.apply(_versions(name, a=a.port, b=b.port))
            assert gateway.get().json()["name"] == name


def test_what_vanishes_unasked_stays(gateway: Gateway) -> None:
    with Upstream() as upstream:
        gateway.apply(table(upstream.port))
        with pytest.raises(GiveUp, match="would vanish") as caught:
            gateway.apply(RoutingTable())
        assert caught.value.reason == "GatewayRejected"
        assert gateway.get().status == 200
        gateway.apply(RoutingTable(), removed=frozenset({HOST}))
        assert gateway.get().status == 404


def test_a_stopped_gateway_lets_requests_in_flight_end(gateway: Gateway) -> None:
    with Upstream() as upstream, ThreadPoolExecutor(1) as pool:
        gateway.apply(table(upstream.port))
        held = pool.submit(gateway.get, "/held")
        assert upstream.holding.acquire(timeout=10)
        gateway.shim.terminate()
        threading.Timer(1.0, upstream.release.set).start()
        assert held.result().status == 200
        assert gateway.shim.wait(10) == 0
        assert not (gateway.directory / "envoy.pid").exists()
