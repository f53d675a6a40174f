"""Clients and applications that mean harm: no other tenant notices, and nobody reads a path in two ways."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minuet.gateway.model import RoutingTable
from tests.given.gateway import HOST, Gateway, backend, route, table
from tests.given.load import Load
from tests.given.platform import eventually
from tests.given.upstream import RawUpstream, Upstream

pytestmark = pytest.mark.envoy


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Upstream, Upstream]]:
    """Everything goes to one application, what is below /admin to another."""
    gateway = Gateway(tmp_path_factory.mktemp("guarded"))
    with Upstream("open") as everything, Upstream("admin") as admin:
        gateway.apply(
            RoutingTable(
                (route("open"), route("admin", base_path="/admin")),
                (backend("open", everything.port), backend("admin", admin.port)),
            )
        )
        yield gateway, everything, admin
    gateway.stop()


PIECES = st.sampled_from(
    [
        "admin",
        "/",
        "//",
        "..",
        ".",
        "%2e",
        "%2E%2e",
        "%2f",
        "%5c",
        "\\",
        ";",
        ";x=1",
        "%00",
        "%61dmin",
        "Admin",
        "a",
        "?",
        "#",
        "%",
        "%25",
        "%252f",
        "é",
        " ",
        "\t",
        "*",
        "http://other/",
        "@",
        ":",
        "%c0%ae",
        "%zz",
    ]
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, min_size=1, max_size=7).map(lambda pieces: "/" + "".join(pieces)))
def test_where_a_request_goes_is_where_the_application_reads_it(
    guarded: tuple[Gateway, Upstream, Upstream], target: str
) -> None:
    """Whatever is decided by path at the gateway must hold for the path that arrives."""
    gateway, everything, admin = guarded
    counts = len(everything.received), len(admin.received)
    answer = gateway.raw(f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 ")
    for request in admin.received[counts[1] :]:
        assert _below_admin(request.path)
    for request in everything.received[counts[0] :]:
        assert not _below_admin(request.path)
        assert not any(part in ("..", ".") for part in request.path.partition("?")[0].split("/"))


def _below_admin(path: str) -> bool:
    plain = path.partition("?")[0]
    return plain == "/admin" or plain.startswith("/admin/")


def test_nobody_joins_the_gateways_port_to_take_a_share_of_the_requests(gateway: Gateway, upstream: Upstream) -> None:
    gateway.apply(table(upstream.port))
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            thief.bind(("127.0.0.1", gateway.port))


HOSTILE_ANSWERS = {
    "too-many-headers": b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(5000)) + b"\r\n",
    "huge-header": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "no-http": b"SSH-2.0-OpenSSH_9.2\r\n",
    "two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
    "length-and-chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    "nul": b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", HOSTILE_ANSWERS)
def test_an_answer_that_is_no_good_http_becomes_an_error_of_the_gateway(gateway: Gateway, name: str) -> None:
    with RawUpstream(HOSTILE_ANSWERS[name]) as hostile, Upstream() as good:
        gateway.apply(
            RoutingTable(
                (route("hostile"), route("good", host="good.localhost", owner="cmp_2/env_1")),
                (backend("hostile", hostile.port), backend("good", good.port)),
            )
        )
        answer = gateway.get()
        assert answer.status in {502, 503}
        assert answer.json()["code"] in {"GATEWAY_ERROR", "NO_HEALTHY_BACKEND"}
        assert gateway.get(host="good.localhost").status == 200


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _headers(stream: int, ended: bool = True) -> bytes:
    """GET / over http for the host, in HPACK: three indexed fields and one literal without indexing."""
    block = b"\x82\x84\x86\x01" + bytes([len(HOST)]) + HOST.encode()
    return _frame(1, 0x5 if ended else 0x1, stream, block)


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0)
_RESET = struct.pack(">I", 8)


def test_the_frames_of_this_file_are_good_http2(gateway: Gateway, upstream: Upstream) -> None:
    gateway.apply(table(upstream.port))
    gateway.raw(_PREFACE + _headers(1))
    assert [request.path for request in upstream.received] == ["/"]


FLOODS = {
    "rapid-reset": lambda n: _headers(2 * n + 1) + _frame(3, 0, 2 * n + 1, _RESET),
    "settings": lambda _n: _frame(4, 0, 0, struct.pack(">HI", 3, 100)) * 20,
    "ping": lambda _n: _frame(6, 0, 0, b"12345678") * 20,
    "empty-data": lambda n: (_headers(1, ended=False) if n == 0 else b"") + _frame(0, 0, 1) * 20,
    "priority": lambda n: _frame(2, 0, 2 * n + 1, struct.pack(">IB", 0, 1)) * 20,
    "endless-continuation": lambda n: (
        (_frame(1, 0, 1, b"\x82\x84\x86") if n == 0 else b"") + _frame(9, 0, 1, b"\x00\x01a\x7f\x61" + b"b" * 224)
    ),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_frames_is_cut_off_and_disturbs_nobody(gateway: Gateway, upstream: Upstream, name: str) -> None:
    gateway.apply(table(upstream.port))
    with Load(gateway.port, HOST) as load:
        eventually(lambda: len(load.answers) > 20, what="the load runs")
        assert _flood(gateway, name), "the gateway never cut the connection"
        asked = len(load.answers)
        eventually(lambda: len(load.answers) > asked + 20, what="the load goes on")
    assert load.failures == []
    assert max(load.seconds) < 2


def _flood(gateway: Gateway, name: str) -> bool:
    """Whether the gateway ended the connection."""
    with gateway.connect() as connection:
        closed = threading.Event()
        threading.Thread(target=_drain, args=(connection, closed), daemon=True).start()
        deadline = time.monotonic() + 15
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(_PREFACE)
            for number in range(20_000):
                connection.sendall(FLOODS[name](number))
                if closed.is_set() or time.monotonic() > deadline:
                    break
            return closed.wait(1)
        return True


def _drain(connection: socket.socket, closed: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(65536):
            pass
    closed.set()


def test_a_client_that_reads_nothing_holds_up_only_itself(gateway: Gateway, upstream: Upstream) -> None:
    gateway.apply(table(upstream.port))
    lazy = [gateway.connect() for _ in range(20)]
    for connection in lazy:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode() * 200)
    began = time.monotonic()
    assert [gateway.get().status for _ in range(20)] == [200] * 20
    assert time.monotonic() - began < 10
    for connection in lazy:
        connection.close()
