"""Whatever is wrong is told in one form, with the place and the next step."""

from __future__ import annotations

import json
import socket

import pytest

from tests.given.servers import Server, Tenant


def test_an_unknown_key_names_the_one_that_was_meant(tenant: Tenant) -> None:
    answer = tenant.client.post(f"{tenant.path}/environments", json={"name": "qa", "dataPlan": "default"})
    problem = answer.json()
    assert answer.status_code == 422
    assert problem["hint"] == "did you mean dataPlane?"
    assert problem["violations"][0]["field"] == "dataPlan"
    assert "dataPlane" in problem["violations"][0]["allowed"]


@pytest.mark.parametrize(
    ("name", "part"), [("Qa", "lower-case"), ("a--b", "hyphens"), ("", "letter"), ("1a", "letter"), ("é", "letters")]
)
def test_a_name_that_is_none_is_refused_with_the_rule(tenant: Tenant, name: str, part: str) -> None:
    answer = tenant.client.post(f"{tenant.path}/environments", json={"name": name})
    assert answer.status_code == 422
    [violation] = answer.json()["violations"]
    assert violation["field"] == "name"
    assert part in violation["message"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "MalformedRequest"),
        (b"\xff\xfe", 400, "MalformedRequest"),
        (b"[]", 422, "Invalid"),
        (b"null", 422, "Invalid"),
        (b'{"name": 5}', 422, "Invalid"),
        (b'{"name": "a\\u0000b"}', 422, "Invalid"),
        (b'{"name": "a\\ud800b"}', 422, "Invalid"),
        (b'{"a\\ud800": 1, "name": "x"}', 422, "Invalid"),
        (b'{"name": "x", "displayName": "a\\u0007"}', 422, "Invalid"),
    ],
)
def test_a_body_that_is_none_is_a_problem(tenant: Tenant, body: bytes, status: int, code: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = tenant.client.post(f"{tenant.path}/environments", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in answer.text


def test_a_body_above_the_bound_is_refused(tenant: Tenant) -> None:
    body = json.dumps({"name": "x", "displayName": "y" * 1_100_000}).encode()
    headers = {"Content-Type": "application/json"}
    answer = tenant.client.post(f"{tenant.path}/environments", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "BodyTooLarge")


def test_a_chunked_body_above_the_bound_is_refused_too(tenant: Tenant) -> None:
    def chunks():
        for _ in range(20):
            yield b" " * 100_000

    headers = {"Content-Type": "application/json"}
    answer = tenant.client.post(f"{tenant.path}/environments", content=chunks(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "BodyTooLarge")


def test_unknown_routes_and_methods_are_problems(tenant: Tenant) -> None:
    missing = tenant.client.get("/organisations")
    assert (missing.status_code, missing.json()["code"]) == (404, "RouteNotFound")
    wrong = tenant.client.put("/me")
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["allow"]) == (405, "MethodNotAllowed", "GET")


def test_a_nul_in_the_address_is_refused(tenant: Tenant) -> None:
    for path in (f"{tenant.path}/environments/%00", f"{tenant.path}/environments?cursor=%00"):
        answer = tenant.client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (400, "MalformedRequest")


def test_every_answer_has_a_request_id_and_is_not_kept_by_caches(tenant: Tenant) -> None:
    answer = tenant.client.get("/me", headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["cache-control"] == "no-store"
    assert tenant.client.get("/me", headers={"X-Request-Id": "no\tgood"}).headers["x-request-id"] != "no\tgood"


def test_half_a_request_disturbs_nobody(server: Server, tenant: Tenant) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as half:
        half.sendall(b"POST /api/v1/organizations HTTP/1.1\r\nHost: x\r\nContent-Le")
        assert tenant.client.get("/me").status_code == 200


def test_health_docs_and_openapi_need_no_token(server: Server) -> None:
    import httpx2

    for path in ("/healthz", "/readyz", "/docs", "/api/v1/openapi.json"):
        assert httpx2.get(server.url + path, trust_env=False).status_code == 200
    page = httpx2.get(f"{server.url}/docs", trust_env=False)
    assert "<script" not in page.text
    assert "createEnvironment" in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
