"""Tokens: made once, shown once, stopped at once."""

from __future__ import annotations

import datetime
import sqlite3

import pytest

from tests.given import servers
from tests.given.servers import Server, Tenant
from tests.given.shops import eventually


def test_me_tells_who_the_token_stands_for(server: Server, tenant: Tenant) -> None:
    answer = tenant.client.get("/me").json()
    assert answer["organization"] == tenant.name
    assert (answer["operator"], answer["readOnly"], answer["tokenName"]) == (False, False, "owner")
    assert server.client().get("/me").json()["operator"] is True


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer nonsense", "Basic eDp5", "Bearer " + "x" * 5000])
def test_a_request_without_a_valid_token_is_challenged(server: Server, header: str | None) -> None:
    client = server.client()
    client.headers.pop("authorization")
    answer = client.get("/me", headers={} if header is None else {"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["family"] == "Unauthenticated"


def test_a_request_without_a_token_is_refused_before_its_body_is_read(server: Server) -> None:
    client = server.client("nonsense")
    assert client.post("/organizations", content=b"{not json").status_code == 401


def test_a_made_token_works_and_its_text_is_not_shown_again(server: Server, tenant: Tenant) -> None:
    made = tenant.client.post(f"{tenant.path}/tokens", json={"name": "ci"})
    assert made.status_code == 201
    text = made.json()["token"]
    assert server.client(text).get("/me").json()["tokenName"] == "ci"
    listed = tenant.client.get(f"{tenant.path}/tokens")
    assert [item["name"] for item in listed.json()["items"]] == ["owner", "ci"]
    assert text not in listed.text


def test_the_text_of_a_token_is_not_in_the_database(server: Server, tenant: Tenant) -> None:
    if server.storage:
        pytest.skip("looks into the file of SQLite")
    key = {"Idempotency-Key": "once"}
    text = tenant.client.post(f"{tenant.path}/tokens", json={"name": "ci"}, headers=key).json()["token"]
    with sqlite3.connect(f"file:{server.data / 'minuet.db'}?mode=ro", uri=True) as connection:
        assert text not in "\n".join(connection.iterdump())
    assert text not in server.log.read_text()


def test_a_read_only_token_reads_and_does_nothing_else(server: Server, tenant: Tenant) -> None:
    text = tenant.client.post(f"{tenant.path}/tokens", json={"name": "eyes", "readOnly": True}).json()["token"]
    reader = server.client(text)
    assert reader.get(f"{tenant.path}/environments").status_code == 200
    answer = reader.post(f"{tenant.path}/tokens", json={"name": "more"})
    assert (answer.status_code, answer.json()["code"]) == (403, "ReadOnlyToken")


def test_a_revoked_token_opens_nothing(server: Server, tenant: Tenant) -> None:
    made = tenant.client.post(f"{tenant.path}/tokens", json={"name": "ci"}).json()
    assert tenant.client.delete(f"{tenant.path}/tokens/{made['id']}").status_code == 204
    assert server.client(made["token"]).get("/me").status_code == 401
    assert tenant.client.delete(f"{tenant.path}/tokens/ci").status_code == 404


def test_the_last_writing_token_stays(tenant: Tenant) -> None:
    tenant.client.post(f"{tenant.path}/tokens", json={"name": "eyes", "readOnly": True})
    answer = tenant.client.delete(f"{tenant.path}/tokens/owner")
    assert (answer.status_code, answer.json()["code"]) == (409, "LastToken")


def test_an_expired_token_opens_nothing(server: Server, tenant: Tenant) -> None:
    import time

    expiry = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)
    body = {"name": "short", "expiresAt": expiry.isoformat()}
    client = server.client(tenant.client.post(f"{tenant.path}/tokens", json=body).json()["token"])
    deadline = time.monotonic() + 10
    while client.get("/me").status_code == 200:
        assert time.monotonic() < deadline
    assert datetime.datetime.now(datetime.UTC) >= expiry


def test_an_expiry_in_the_past_or_without_a_zone_is_refused(tenant: Tenant) -> None:
    for moment in ("2020-01-01T00:00:00Z", "2090-01-01T00:00:00"):
        answer = tenant.client.post(f"{tenant.path}/tokens", json={"name": "old", "expiresAt": moment})
        assert answer.status_code == 422
        assert answer.json()["violations"][0]["field"] == "expiresAt"


def test_neighbours_reach_only_their_own_routes(server: Server) -> None:
    for role in ("builder", "agent"):
        client = server.client(server.credential(role))
        assert client.get("/me").json()["role"] == role
        assert client.get("/organizations/default/environments").status_code == 403
        assert client.post("/organizations", json={"name": "mine"}).status_code == 403
        assert client.get("/organizations").json()["items"] == []


def test_a_token_that_expired_does_not_count_as_one_that_may_write(server: Server, tenant: Tenant) -> None:
    expiry = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)
    body = {"name": "short", "expiresAt": expiry.isoformat()}
    short = server.client(tenant.client.post(f"{tenant.path}/tokens", json=body).json()["token"])
    eventually(lambda: short.get("/me").status_code == 401)
    answer = tenant.client.delete(f"{tenant.path}/tokens/owner")
    assert (answer.status_code, answer.json()["code"]) == (409, "LastToken")
    assert tenant.client.delete(f"{tenant.path}/tokens/short").status_code == 204


def test_only_an_operator_makes_and_revokes_an_operator(server: Server) -> None:
    operator, path = server.client(), "/organizations/default/tokens"
    owner = server.client(operator.post(path, json={"name": servers.unique("plain")}).json()["token"])
    assert owner.get("/me").json()["operator"] is False
    for answer in (owner.delete(f"{path}/owner"), owner.post(path, json={"name": "op", "operator": True})):
        assert (answer.status_code, answer.json()["code"]) == (403, "OperatorOnly")
    last = operator.delete(f"{path}/owner")
    assert (last.status_code, last.json()["code"]) == (409, "LastToken"), "another owner is no operator"
    name = servers.unique("second")
    second = server.client(operator.post(path, json={"name": name, "operator": True}).json()["token"])
    assert second.get("/me").json()["operator"] is True
    both = operator.post(path, json={"name": "x", "operator": True, "readOnly": True})
    assert (both.status_code, both.json()["violations"][0]["field"]) == (422, "readOnly")
    assert operator.delete(f"{path}/{name}").status_code == 204


def test_an_operator_makes_a_token_for_an_organization_that_lost_its_own(server: Server, tenant: Tenant) -> None:
    path = f"{tenant.path}/recovery-tokens"
    refused = tenant.client.post(path, json={"name": "mine"})
    assert (refused.status_code, refused.json()["code"]) == (403, "OperatorOnly")
    made = server.client().post(path, json={"name": "recovery"})
    assert made.status_code == 201
    me = server.client(made.json()["token"]).get("/me").json()
    assert (me["organization"], me["operator"], me["readOnly"]) == (tenant.name, False, False)
    assert server.client().post("/organizations/nobody/recovery-tokens", json={"name": "x"}).status_code == 404
