"""What the edge lets through: raw bytes in, one status out, and what the application saw of it."""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import time
import uuid

import pytest

from minuet.gateway.limits import GatewayLimits
from tests.given.gateway import HOST, Gateway, read_all, table
from tests.given.upstream import RawUpstream, Received, Upstream

pytestmark = pytest.mark.envoy
Edge = tuple[Gateway, Upstream]
GET = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n"
POST = f"POST / HTTP/1.1\r\nHost: {HOST}\r\n"
INNER = f"GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n"


def _statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", answer)]


def _seen(edge: Edge, path: str, **more: object) -> Received:
    """What the application received for one request of ours."""
    gateway, upstream = edge
    mark = f"/{uuid.uuid4().hex}"
    assert gateway.get(mark + path, **more).status == 200
    return next(request for request in upstream.received if request.path.startswith(mark))


SMUGGLING = {
    "content-length-and-chunked": f"{POST}Content-Length: {len(INNER)}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{INNER}",
    "two-content-lengths": f"{POST}Content-Length: 0\r\nContent-Length: {len(INNER)}\r\n\r\n{INNER}",
    "two-lengths-in-one": f"{POST}Content-Length: 0, {len(INNER)}\r\n\r\n{INNER}",
    "xchunked": f"{POST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{INNER}",
    "chunked-then-identity": f"{POST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{INNER}",
    "space-before-colon": f"{POST}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{INNER}",
    "signed-content-length": f"{POST}Content-Length: +4\r\n\r\nabcd{INNER}",
    "negative-content-length": f"{POST}Content-Length: -1\r\n\r\n{INNER}",
    "hexadecimal-content-length": f"{POST}Content-Length: 0x4\r\n\r\nabcd{INNER}",
    "bad-chunk-extension": f"{POST}Transfer-Encoding: chunked\r\n\r\n4;a\nb\r\nabcd\r\n0\r\n\r\n{INNER}",
    "bad-chunk-size": f"{POST}Transfer-Encoding: chunked\r\n\r\n-4\r\nabcd\r\n0\r\n\r\n{INNER}",
    "nul-in-a-header": f"{GET}X-A: a\0b\r\n\r\n{INNER}",
    "nul-in-the-path": f"GET /a\0b HTTP/1.1\r\nHost: {HOST}\r\n\r\n{INNER}",
    "header-without-a-name": f"{GET}: value\r\n\r\n{INNER}",
    "header-name-with-a-space": f"{GET}X A: value\r\n\r\n{INNER}",
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_a_request_that_two_servers_could_read_differently_is_refused_and_carries_no_other(
    edge: Edge, name: str
) -> None:
    gateway, upstream = edge
    before = len(upstream.received)
    statuses = _statuses(gateway.raw(SMUGGLING[name].encode("latin-1")))
    assert statuses in ([400], [501], [])
    assert [request.path for request in upstream.received[before:]] == []


REFUSED = {
    "no-host": ("GET / HTTP/1.1\r\n\r\n", {400}),
    "two-hosts": (f"{GET}Host: other.localhost\r\n\r\n", {400, 404}),
    "underscore-in-a-name": (f"{GET}X_User: root\r\n\r\n", {400}),
    "escaped-slash": (f"GET /a%2fb HTTP/1.1\r\nHost: {HOST}\r\n\r\n", {400}),
    "escaped-backslash": (f"GET /a%5cb HTTP/1.1\r\nHost: {HOST}\r\n\r\n", {400}),
    "too-many-headers": (GET + "".join(f"X-{n}: 1\r\n" for n in range(101)) + "\r\n", {431}),
    "all-headers-too-large": (GET + "".join(f"X-{n}: {'a' * 900}\r\n" for n in range(50)) + "\r\n", {431}),
    "one-header-too-large": (f"{GET}X-A: {'a' * (10 * 1024 + 1)}\r\n\r\n", {431}),
    "address-too-long": (f"GET /{'a' * 2048} HTTP/1.1\r\nHost: {HOST}\r\n\r\n", {414}),
    "query-too-long": (f"GET /?{'a' * 2048} HTTP/1.1\r\nHost: {HOST}\r\n\r\n", {414}),
    "address-too-long-in-odd-bytes": (f"GET /{'é' * 2048} HTTP/1.1\r\nHost: {HOST}\r\n\r\n", {400, 414}),
    "length-of-the-body": (f"{POST}Content-Length: {50 * 1024 * 1024 + 1}\r\n\r\n", {413}),
    "old-protocol": (f"GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n", {426}),
    "unknown-host": ("GET / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n", {404}),
    "tunnel": (f"CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}:80\r\n\r\n", {403, 404, 405}),
    "unknown-upgrade": (f"{GET}Connection: Upgrade\r\nUpgrade: other\r\n\r\n", {403}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_edge_does_not_accept_never_reaches_the_application(edge: Edge, name: str) -> None:
    gateway, upstream = edge
    data, allowed = REFUSED[name]
    before = len(upstream.received)
    answer = gateway.raw(data.encode("utf-8"))
    assert len(_statuses(answer)) == 1
    assert _statuses(answer)[0] in allowed
    assert len(upstream.received) == before


ACCEPTED = {
    "dots": ("/zzz/../app", "/app"),
    "escaped-dots": ("/zzz/%2e%2e/app", "/app"),
    "two-slashes": ("//app", "/app"),
    "two-slashes-inside": ("/x//app", "/x/app"),
    "dot": ("/./app", "/app"),
    "above-the-root": ("/../../app", "/app"),
    "semicolon": ("/a;/b", "/a;/b"),
    "port-in-the-host": ("/app", "/app"),
    "query": ("/app?x=%2f&y=//", "/app?x=%2f&y=//"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_gateway_and_application_read_one_path(edge: Edge, name: str) -> None:
    gateway, _ = edge
    sent, seen = ACCEPTED[name]
    host = f"{HOST}:8480" if name == "port-in-the-host" else HOST
    assert gateway.get(sent, host=host).json()["path"] == seen


LENIENT = {
    "carriage-return-in-a-value": b"X-A: a\rX-Forwarded-For: b",
    "bare-line-feed": b"X-A: a\nX-Forwarded-For: b",
    "folded-line": b"X-A: a\r\n X-Forwarded-For: b",
}


@pytest.mark.parametrize("name", LENIENT)
def test_odd_line_ends_are_put_right_before_the_application_sees_them(edge: Edge, name: str) -> None:
    """The gateway accepts them, so nothing that it did not read as a header may arrive as one."""
    gateway, upstream = edge
    with RawUpstream() as raw:
        gateway.apply(table(raw.port))
        answer = gateway.raw(f"GET /odd HTTP/1.1\r\nHost: {HOST}\r\n".encode() + LENIENT[name] + b"\r\n\r\n")
        gateway.apply(table(upstream.port))
    assert _statuses(answer) == [200]
    lines = raw.received.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    assert not any(line.lower().startswith(b"x-forwarded-for: b") for line in lines)
    assert sum(line.lower().startswith(b"x-forwarded-for:") for line in lines) == 1


def test_the_application_sees_the_host_as_it_was_asked_for(edge: Edge) -> None:
    assert _seen(edge, "", host=f"{HOST}:{edge[0].port}").header("host") == [f"{HOST}:{edge[0].port}"]


def test_an_absolute_address_is_the_same_request(edge: Edge) -> None:
    gateway, upstream = edge
    answer = gateway.raw(f"GET http://{HOST}/absolute HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n".encode())
    assert _statuses(answer) == [200]
    assert upstream.received[-1].path == "/absolute"
    assert upstream.received[-1].header("host") == [HOST]


SPOOFED = (
    "Forwarded",
    "X-Client-Id",
    "X-Consumer",
    "X-Envoy-Decorator-Operation",
    "X-Envoy-External-Address",
    "X-Envoy-Internal",
    "X-Envoy-Max-Retries",
    "X-Envoy-Original-Path",
    "X-Envoy-Retry-On",
    "X-Envoy-Upstream-Rq-Timeout-Ms",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Proto",
    "X-JWT-Assertion",
    "X-Minuet-Organization",
    "X-Original-URL",
    "X-Real-IP",
    "X-Request-Id",
    "X-Rewrite-URL",
    "X-User",
)


@pytest.mark.parametrize("name", SPOOFED)
@pytest.mark.parametrize("spelling", [str.lower, str.upper, str])
def test_what_only_the_gateway_may_say_is_removed(edge: Edge, name: str, spelling) -> None:
    seen = _seen(edge, "", headers={spelling(name): "spoofed"})
    assert "spoofed" not in " ".join(value for _, value in seen.headers)
    assert [key for key, _ in seen.headers if "envoy" in key.lower()] == []


def test_the_application_learns_client_scheme_and_request_from_the_gateway(edge: Edge) -> None:
    seen = _seen(edge, "", headers={"X-Forwarded-For": "8.8.8.8"})
    assert [ipaddress.ip_address(one).is_global for one in seen.header("x-forwarded-for")] == [False]
    assert seen.header("x-forwarded-proto") == ["http"]
    assert uuid.UUID(seen.header("x-request-id")[0])


def test_a_client_cannot_move_the_time_limit_or_name_its_connection_options(edge: Edge) -> None:
    seen = _seen(edge, "", headers={"Connection": "X-Secret, close", "X-Secret": "1", "TE": "trailers"})
    assert seen.header("connection") == []


def test_answers_say_nothing_of_the_inside(edge: Edge) -> None:
    gateway, upstream = edge
    with Upstream("talkative", (("X-Envoy-Upstream-Service-Time", "1"), ("X-Powered-By", "mine"))) as talkative:
        gateway.apply(table(talkative.port))
        headers = gateway.get().headers
        gateway.apply(table(upstream.port))
    assert headers["server"] == "minuet"
    assert headers["x-powered-by"] == "mine"
    assert [name for name in headers if "envoy" in name] == []


PROBLEMS = {
    "RESOURCE_NOT_FOUND": ("GET / HTTP/1.1\r\nHost: nobody.localhost\r\nConnection: close\r\n\r\n", 404),
    "URI_TOO_LONG": (f"GET /{'a' * 3000} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n", 414),
    "HEADERS_TOO_LARGE": (f"{GET}Connection: close\r\nX-A: {'a' * 11_000}\r\n\r\n", 431),
    "PAYLOAD_TOO_LARGE": (f"{POST}Connection: close\r\nContent-Length: 60000000\r\n\r\n", 413),
    "BAD_REQUEST": (f"GET /a%2fb HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n", 400),
}


@pytest.mark.parametrize("code", PROBLEMS)
def test_an_answer_of_the_gateway_is_a_problem_with_a_stable_code(edge: Edge, code: str) -> None:
    data, status = PROBLEMS[code]
    head, _, body = edge[0].raw(data.encode()).partition(b"\r\n\r\n")
    headers = head.decode().lower()
    problem = json.loads(body)
    assert "content-type: application/problem+json" in headers
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["detail"].endswith(".")
    if code != "BAD_REQUEST":  # refused before it had an id
        assert f"x-request-id: {problem['requestId']}" in headers


def test_a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not(edge: Edge) -> None:
    gateway, _ = edge
    limit = GatewayLimits().body_bytes
    assert gateway.request("POST", "/", body=b"a" * limit).json()["body"] == limit
    assert _upload(gateway, limit) == 200
    assert _upload(gateway, limit + 1) == 413


def _upload(gateway: Gateway, size: int) -> int:
    """A body whose length nobody knows before it ends; the answer may come before that."""
    connection = gateway.connect()
    with connection:
        try:
            connection.sendall(f"{POST}Transfer-Encoding: chunked\r\n\r\n".encode())
            block = b"10000\r\n" + b"a" * 65536 + b"\r\n"
            for _ in range(size // 65536):
                connection.sendall(block)
            rest = size % 65536
            connection.sendall((f"{rest:x}\r\n".encode() + b"a" * rest + b"\r\n" if rest else b"") + b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        return _statuses(read_all(connection))[0]


@pytest.mark.parametrize(("path", "status"), [("/" + "a" * 2047, 200), ("/" + "a" * 2048, 414)])
def test_an_address_may_be_two_kilobytes_long(edge: Edge, path: str, status: int) -> None:
    assert edge[0].get(path).status == status


def test_a_header_may_be_ten_kilobytes_long(edge: Edge) -> None:
    assert edge[0].get("/", headers={"X-A": "a" * (10 * 1024 - 3)}).status == 200
    assert edge[0].get("/", headers={"X-A": "a" * (10 * 1024 - 2)}).status == 431


def test_many_headers_that_are_large_together_pass(edge: Edge) -> None:
    headers = {f"X-{number}": "a" * 900 for number in range(35)}
    assert edge[0].get("/", headers=headers).status == 200


def test_headers_that_never_end_are_cut_after_five_seconds_and_disturb_nobody(edge: Edge) -> None:
    gateway, _ = edge
    slow = [gateway.connect() for _ in range(200)]
    began = time.monotonic()
    for connection in slow:
        connection.sendall(GET.encode())
    assert gateway.get().status == 200
    assert time.monotonic() - began < 4
    for connection in slow:
        with connection:
            connection.settimeout(10)
            assert _statuses(read_all(connection)) == [408]
    assert 4 < time.monotonic() - began < 10


def test_an_offer_to_speak_something_else_is_answered_in_what_is_spoken(edge: Edge) -> None:
    answer = edge[0].raw(
        f"{GET}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n\r\n".encode()
    )
    assert _statuses(answer) == [200]


def test_the_short_time_limit_cannot_be_left_by_saying_upgrade_only(edge: Edge) -> None:
    """Without `Connection: upgrade` it is a plain request, and the header does not reach the application."""
    assert _seen(edge, "", headers={"Upgrade": "websocket"}).header("upgrade") == []


def test_a_connection_is_used_for_many_requests(edge: Edge) -> None:
    gateway, _ = edge
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    for number in range(20):
        connection.request("GET", f"/{number}", headers={"Host": HOST})
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["path"]) == (200, f"/{number}")
    connection.close()
