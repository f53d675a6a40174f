"""Two organizations see nothing of each other, on any route there is."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.given import servers
from tests.given.servers import Server, Tenant

FOREIGN = (403, 404)


def routes(server: Server) -> list[tuple[str, str]]:
    """Returns method and path of every operation that is about an organization."""
    document = server.client().get("/openapi.json").json()
    return [
        (method.upper(), path.removeprefix("/api/v1"))
        for path, operations in document["paths"].items()
        for method in operations
        if "{organization}" in path
    ]


def test_every_route_of_an_organization_is_closed_to_another(server: Server, tenant: Tenant) -> None:
    stranger = servers.tenant(server)
    found = routes(server)
    assert len(found) >= 13
    for method, path in found:
        address = path.replace("{organization}", tenant.name)
        address = re.sub(r"\{\w+\}", "development", address)
        answer = stranger.client.request(method, address, json={} if method in ("POST", "PUT", "PATCH") else None)
        assert answer.status_code in FOREIGN, (method, address, answer.text)
        body = answer.text.replace(address, "").replace(f"organization {tenant.name}", "")
        assert tenant.name not in body


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_one_organization_makes_does_not_change_what_another_sees(server: Server, data: st.DataObject) -> None:
    mine, other = _pair(server)
    lists = ("tokens", "environments", "pipelines", "data-planes")

    def seen(tenant: Tenant) -> list[str]:
        answers = [tenant.client.get(f"{tenant.path}/{name}?limit=200").json()["items"] for name in lists]
        answers.append(tenant.client.get("/organizations").json()["items"])
        return [re.sub(r"'lastUsedAt': (None|'[^']*')", "", str(answer)) for answer in answers]

    before = seen(other)
    kind = data.draw(st.sampled_from(["tokens", "environments"]))
    name = "n" + data.draw(st.text("abcdefghij0123456789", min_size=1, max_size=20))
    mine.client.post(f"{mine.path}/{kind}", json={"name": name})
    assert seen(other) == before
    assert other.client.get(f"{other.path}/environments/{name}").status_code == 404
    assert other.client.get(f"{mine.path}/environments/{name}").status_code == 404
    assert other.client.delete(f"{other.path}/tokens/{name}").status_code == 404


def test_the_same_name_in_two_organizations_is_two_things(server: Server, tenant: Tenant) -> None:
    other = servers.tenant(server)
    one = tenant.client.post(f"{tenant.path}/environments", json={"name": "qa"}).json()
    two = other.client.post(f"{other.path}/environments", json={"name": "qa"}).json()
    assert one["id"] != two["id"]


def test_an_operator_sees_names_of_organizations_and_not_into_them(server: Server, tenant: Tenant) -> None:
    operator = server.client()
    assert operator.get(f"/organizations/{tenant.name}").status_code == 200
    assert operator.get(f"{tenant.path}/tokens").status_code == 404
    assert tenant.client.get("/organizations/default").status_code == 404


def test_only_an_operator_makes_organizations(tenant: Tenant) -> None:
    answer = tenant.client.post("/organizations", json={"name": "another"})
    assert (answer.status_code, answer.json()["code"]) == (403, "OperatorOnly")


def test_a_new_organization_has_all_it_needs(tenant: Tenant) -> None:
    environments = tenant.client.get(f"{tenant.path}/environments").json()["items"]
    assert [(item["name"], item["critical"]) for item in environments] == [("development", False), ("production", True)]
    [pipeline] = tenant.client.get(f"{tenant.path}/pipelines").json()["items"]
    assert (pipeline["name"], pipeline["environments"]) == ("default", ["development", "production"])
    [plane] = tenant.client.get(f"{tenant.path}/data-planes").json()["items"]
    assert (plane["name"], plane["shared"]) == ("default", True)


@pytest.mark.parametrize("name", ["default", "x" * 57])
def test_an_organization_that_cannot_be_is_refused(server: Server, name: str) -> None:
    assert server.client().post("/organizations", json={"name": name}).status_code in (409, 422)


_PAIRS: dict[str, tuple[Tenant, Tenant]] = {}


def _pair(server: Server) -> tuple[Tenant, Tenant]:
    if str(server.data) not in _PAIRS:
        _PAIRS[str(server.data)] = (servers.tenant(server), servers.tenant(server))
    return _PAIRS[str(server.data)]
