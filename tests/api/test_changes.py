"""What can be changed and removed after it was made, and what may not go because something needs it."""

from __future__ import annotations

import datetime
from typing import Any

import httpx2
import pytest

from tests.given.agents import Agent
from tests.given.builders import problem
from tests.given.servers import Server, Tenant
from tests.given.shops import Shop, eventually

STALE = {"If-Match": '"0"'}


def refused(answer: httpx2.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    code: str = problem(answer)["code"]
    return code


def test_a_token_is_shown_without_its_text_and_its_use_does_not_change_its_tag(server: Server, tenant: Tenant) -> None:
    made = tenant.client.post(f"{tenant.path}/tokens", json={"name": "ci"}).json()
    path = f"{tenant.path}/tokens/ci"
    shown = tenant.client.get(path)
    assert shown.json() == {key: value for key, value in made.items() if key != "token"}
    assert server.client(made["token"]).get("/me").status_code == 200
    assert tenant.client.get(f"{tenant.path}/tokens/{made['id']}").headers["etag"] == shown.headers["etag"]
    assert refused(tenant.client.delete(path, headers=STALE), 412) == "PreconditionFailed"
    assert tenant.client.delete(path, headers={"If-Match": shown.headers["etag"]}).status_code == 204
    assert refused(tenant.client.get(path), 404) == "TokenNotFound"


def test_an_environment_changes_what_people_read(tenant: Tenant) -> None:
    path = f"{tenant.path}/environments/development"
    tag = tenant.client.get(path).headers["etag"]
    changed = tenant.client.patch(path, json={"displayName": "Dev", "critical": True}, headers={"If-Match": tag})
    assert (changed.status_code, changed.json()["displayName"], changed.json()["critical"]) == (200, "Dev", True)
    assert tenant.client.get(path).headers["etag"] == changed.headers["etag"] != tag
    assert refused(tenant.client.patch(path, json={"critical": False}, headers={"If-Match": tag}), 412)
    assert tenant.client.patch(path, json={}).json() == changed.json()
    assert refused(tenant.client.patch(path, json={"name": "dev"}), 422) == "Invalid"


def test_an_environment_goes_only_when_no_pipeline_and_no_deployment_needs_it(shop: Shop, agent: Agent) -> None:
    client, base = shop.tenant.client, shop.tenant.path
    assert client.post(f"{base}/environments", json={"name": "qa"}).status_code == 201
    path = f"{base}/environments/qa"
    made = client.post(f"{base}/pipelines", json={"name": "side", "environments": ["qa"]})
    assert made.status_code == 201
    assert refused(client.delete(path), 409) == "InUse", "a pipeline leads to it"
    configuration = {"set": [{"name": "MODE", "value": "x"}, {"name": "KEY", "kind": "secret", "value": "y"}]}
    shop.call("PATCH", "/environments/qa/configuration", 200, json=configuration)
    shop.build()
    deployed = shop.deploy_ready(agent, "qa")
    assert refused(client.delete(f"{base}/pipelines/side"), 409) == "InUse", "it is the only way to what runs there"
    shop.call("DELETE", "/environments/qa", 202)
    key = f"{shop.call('GET').json()['id']}/{client.get(path).json()['id']}"
    agent.until_removed(key)
    agent.report(full=True)
    eventually(lambda: client.delete(f"{base}/pipelines/side").status_code == 204)
    assert refused(client.delete(path, headers=STALE), 412)
    assert client.delete(path).status_code == 204
    assert refused(client.get(path), 404) == "EnvironmentNotFound"
    assert shop.call("GET", "/deployments", 200).json()["items"] == []
    assert refused(shop.call("GET", f"/deployments/{deployed['current']['id']}"), 404) == "DeploymentNotFound"
    assert client.post(f"{base}/environments", json={"name": "qa"}).status_code == 201
    assert shop.call("GET", "/environments/qa/configuration", 200).json()["entries"] == []


def test_promotion_follows_a_changed_default_pipeline(shop: Shop, agent: Agent) -> None:
    client, base = shop.tenant.client, shop.tenant.path
    assert client.post(f"{base}/environments", json={"name": "staging"}).status_code == 201
    path = f"{base}/pipelines/default"
    tag = client.get(path).headers["etag"]
    stages = ["staging", "development", "production"]
    changed = client.patch(path, json={"displayName": "Main", "environments": stages}, headers={"If-Match": tag})
    assert (changed.json()["displayName"], changed.json()["environments"]) == ("Main", stages)
    assert refused(client.patch(path, json={"displayName": "x"}, headers={"If-Match": tag}), 412)
    build = shop.build()
    assert shop.deploy("development", 409, build=build)["code"] == "NotPromotable"
    shop.deploy_ready(agent, "staging", build=build)
    assert shop.deploy("development", build=build)["action"] == "promote"
    assert client.patch(path, json={"environments": ["staging", "production"]}).status_code == 409, "development runs"
    reordered = client.patch(path, json={"environments": ["development", "staging", "production"]})
    assert reordered.status_code == 200
    assert shop.deploy("development", build=build)["action"] == "deploy"


def test_a_pipeline_goes_unless_it_is_the_default_one(tenant: Tenant) -> None:
    path = f"{tenant.path}/pipelines"
    assert tenant.client.post(path, json={"name": "side", "environments": ["development"]}).status_code == 201
    assert refused(tenant.client.delete(f"{path}/default"), 409) == "InUse"
    unknown = tenant.client.patch(f"{path}/side", json={"environments": ["nowhere"]})
    assert problem(unknown)["violations"][0]["field"] == "environments.0"
    assert refused(tenant.client.delete(f"{path}/side", headers=STALE), 412)
    assert tenant.client.delete(f"{path}/side").status_code == 204
    assert refused(tenant.client.get(f"{path}/side"), 404) == "PipelineNotFound"


def test_the_value_of_a_credential_is_replaced_while_a_component_uses_it(shop: Shop) -> None:
    client, path = shop.tenant.client, f"{shop.tenant.path}/credentials"
    body = {"name": "forge", "kind": "token", "username": "ada", "token": "the-old-one"}
    made = client.post(path, json=body)
    assert (made.status_code, made.json()["displayName"]) == (201, "forge")
    shop.call("PATCH", "", 200, json={"repository": {"credential": "forge"}})
    tag = client.get(f"{path}/forge").headers["etag"]
    changed = client.patch(f"{path}/forge", json={"token": "the-new-one"}, headers={"If-Match": tag})
    assert (changed.status_code, "new-one" in changed.text) == (200, False)
    assert changed.headers["etag"] != tag
    assert refused(client.patch(f"{path}/forge", json={"token": "z"}, headers={"If-Match": tag}), 412)
    shop.call("POST", "/builds", 201, json={})
    order = shop.builder.lease_of(shop.project)
    assert order.credential is not None
    assert (order.credential.username, order.credential.token) == ("ada", "the-new-one")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "b", "kind": "deploy-key", "token": "x"}, "token"),
        ({"name": "b", "kind": "deploy-key"}, "deployKey"),
        ({"name": "b", "kind": "token"}, "token"),
        ({"name": "b", "kind": "token", "token": "x", "deployKey": "y"}, "deployKey"),
    ],
)
def test_a_credential_with_a_value_of_another_kind_names_the_field(
    tenant: Tenant, body: dict[str, str], field: str
) -> None:
    answer = tenant.client.post(f"{tenant.path}/credentials", json=body)
    assert answer.status_code == 422
    assert [item["field"] for item in problem(answer)["violations"]] == [field]


def test_builders_are_listed_with_when_they_were_heard_of(shop: Shop) -> None:
    [builder] = [item for item in pages(shop.tenant, "builders") if item["connected"]]
    assert (builder["name"], builder["version"]) == ("builder", "0.1.0")
    seen = datetime.datetime.fromisoformat(builder["seenAt"])
    assert datetime.datetime.now(datetime.UTC) - seen < datetime.timedelta(seconds=60)


def test_an_organization_goes_when_it_is_empty_and_an_operator_asks(server: Server, tenant: Tenant) -> None:
    operator = server.client()
    assert refused(tenant.client.delete(tenant.path), 403) == "OperatorOnly"
    assert tenant.client.post(f"{tenant.path}/projects", json={"name": "shop"}).status_code == 201
    assert refused(operator.delete(tenant.path), 409) == "InUse"
    assert tenant.client.delete(f"{tenant.path}/projects/shop").status_code == 202
    eventually(lambda: tenant.client.get(f"{tenant.path}/projects/shop").status_code == 404)
    assert refused(operator.delete(tenant.path, headers=STALE), 412)
    assert operator.delete(tenant.path).status_code == 204
    assert tenant.client.get("/me").status_code == 401, "its tokens went with it"
    assert refused(operator.get(tenant.path), 404) == "OrganizationNotFound"
    assert refused(operator.delete("/organizations/default"), 409) == "InUse"
    again = operator.post("/organizations", json={"name": tenant.name})
    assert again.status_code == 201


def pages(tenant: Tenant, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = tenant.client.get(f"{tenant.path}/{name}", params=cursor).json()
        found += page["items"]
        if page["next"] is None:
            return found
        cursor = {"cursor": page["next"]}
