"""A request goes where the table says, in every protocol that an endpoint can speak."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets
import websockets.exceptions

from minuet.gateway.envoy import binary
from minuet.gateway.limits import GatewayLimits
from minuet.gateway.model import Endpoint, RoutingTable
from tests.given.gateway import HOST, Gateway, backend, route, table
from tests.given.platform import eventually, free_port
from tests.given.upstream import Upstream

pytestmark = pytest.mark.envoy


def test_endpoints_of_one_host_are_told_apart_by_the_longest_base_path(gateway: Gateway) -> None:
    with Upstream("root") as root, Upstream("api") as api, Upstream("new") as new:
        gateway.apply(
            RoutingTable(
                (
                    route("root"),
                    route("api", base_path="/api", strip_base_path=True),
                    route("new", base_path="/api/v2", strip_base_path=True),
                ),
                (backend("root", root.port), backend("api", api.port), backend("new", new.port)),
            )
        )
        seen = {path: gateway.get(path).json() for path in ("/", "/api", "/api/", "/api/x?y=1", "/api/v2/x", "/apiary")}
    assert {path: (one["name"], one["path"]) for path, one in seen.items()} == {
        "/": ("root", "/"),
        "/api": ("api", "/"),
        "/api/": ("api", "/"),
        "/api/x?y=1": ("api", "/x?y=1"),
        "/api/v2/x": ("new", "/x"),
        "/apiary": ("root", "/apiary"),
    }


def test_a_host_whose_application_is_not_ready_says_503_and_an_unknown_one_404(gateway: Gateway) -> None:
    gateway.apply(table())
    waiting, unknown = gateway.get(), gateway.get(host="nobody.localhost")
    assert (waiting.status, waiting.json()["code"]) == (503, "NO_HEALTHY_BACKEND")
    assert (unknown.status, unknown.json()["code"]) == (404, "RESOURCE_NOT_FOUND")


def test_an_application_that_does_not_listen_is_a_503_and_says_nothing_of_addresses(gateway: Gateway) -> None:
    gateway.apply(table(free_port()))
    answer = gateway.get()
    assert (answer.status, answer.json()["code"]) == (503, "NO_HEALTHY_BACKEND")
    assert b"127.0.0.1" not in answer.body
    assert b"111" not in answer.body


def test_an_instance_that_does_not_listen_costs_no_request_while_another_does(gateway: Gateway) -> None:
    with Upstream() as upstream:
        gateway.apply(table(upstream.port, free_port()))
        assert [gateway.get().status for _ in range(50)] == [200] * 50


def test_a_request_that_the_application_does_not_answer_in_time_is_a_504(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, GatewayLimits(request_seconds=1.0))
    try:
        with Upstream() as upstream:
            gateway.apply(table(upstream.port))
            answer = gateway.get("/held")
        assert (answer.status, answer.json()["code"]) == (504, "BACKEND_TIMEOUT")
    finally:
        gateway.stop()


def test_an_application_that_hangs_up_is_not_asked_twice(gateway: Gateway) -> None:
    """The request may have had its effect already."""
    with Upstream() as upstream:
        gateway.apply(table(upstream.port))
        upstream.hang_up.set()
        answer = gateway.request("POST", "/once", body=b"a")
        assert answer.status == 503
        assert [request.path for request in upstream.received] == ["/once"]


def test_a_websocket_goes_through_and_ends_with_its_time(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, GatewayLimits(websocket_seconds=2.0, request_seconds=1.0))
    try:
        echoed, after = asyncio.run(_talk(gateway))
    finally:
        gateway.stop()
    assert echoed == ["hello", "x" * 100_000]
    assert 1.5 < after < 5


async def _talk(gateway: Gateway) -> tuple[list[str], float]:
    async def echo(connection: websockets.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await asyncio.to_thread(gateway.apply, table(port, protocol="websocket"))
        began = asyncio.get_running_loop().time()
        async with websockets.connect(f"ws://{HOST}/chat", host="127.0.0.1", port=gateway.port) as client:
            echoed = []
            for message in ("hello", "x" * 100_000):
                await client.send(message)
                echoed.append(str(await client.recv()))
            with pytest.raises(websockets.exceptions.ConnectionClosed):
                await asyncio.wait_for(client.recv(), 10)
        return echoed, asyncio.get_running_loop().time() - began


@pytest.fixture
def http2_application(tmp_path: Path) -> Iterator[int]:
    """Another Envoy that speaks nothing but HTTP/2 without TLS, as a gRPC server does."""
    port = free_port()
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "application",
        "codec_type": "HTTP2",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "direct_response": {"status": 200, "body": {"inline_string": "over HTTP/2"}},
                            "response_headers_to_add": [{"header": {"key": "asked-in", "value": "%PROTOCOL%"}}],
                        }
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    file = tmp_path / "application.json"
    file.write_text(json.dumps({"static_resources": {"listeners": [listener]}}))
    process = subprocess.Popen(
        [binary(), "-c", str(file), "--disable-hot-restart", "--concurrency", "1", "-l", "error"]
    )
    yield port
    process.kill()
    process.wait()


def test_a_grpc_endpoint_is_asked_in_http2(gateway: Gateway, http2_application: int) -> None:
    gateway.apply(table(http2_application, protocol="grpc"))
    answer = eventually(lambda: (a := gateway.get()).status == 200 and a, 10, "the application answers")
    assert (answer.body, answer.headers["asked-in"]) == (b"over HTTP/2", "HTTP/2")


def test_clients_may_speak_http2(gateway: Gateway) -> None:
    with Upstream() as upstream:
        gateway.apply(table(upstream.port))
        done = subprocess.run(
            ["curl", "-s", "--http2-prior-knowledge", "-w", "%{http_version}", "-H", f"Host: {HOST}",
             f"http://127.0.0.1:{gateway.port}/two"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    assert done.stdout.endswith("}2")
    assert '"path": "/two"' in done.stdout


def test_requests_in_flight_on_a_backend_are_counted(gateway: Gateway) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with Upstream() as upstream, ThreadPoolExecutor(3) as pool:
        gateway.apply(table(upstream.port))
        key = backend("one").key
        assert gateway.active(key) == 0
        held = [pool.submit(gateway.get, "/held") for _ in range(3)]
        for _ in held:
            assert upstream.holding.acquire(timeout=10)
        assert gateway.active(key) == 3
        upstream.release.set()
        assert [one.result().status for one in held] == [200] * 3
        assert eventually(lambda: gateway.active(key) == 0, 5, "nothing is in flight")
        assert gateway.active("nobody:1@x") is None


def test_one_bad_route_is_left_out_with_its_reason_and_the_others_work(gateway: Gateway) -> None:
    with Upstream() as upstream:
        bad = route("one", host="bad.localhost", base_path="no-slash", owner="cmp_2/env_1")
        thief = route("one", base_path="/admin", owner="cmp_2/env_1")
        broken = backend("broken").__class__("cmp_3/env_1:1@x", (Endpoint("not-an-address", 1),))
        good = table(upstream.port)
        gateway.apply(RoutingTable((thief, bad, *good.routes), (*good.backends, broken)))
        assert gateway.get("/admin").json()["name"] == "one"
        refused = {refusal.owner for refusal in gateway.admitted.refusals}
    assert refused == {"cmp_2/env_1", "cmp_3/env_1:1@x"}
