"""Projects, components and credentials through the API, and that nothing of them is seen by another organization."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.given import servers
from tests.given.builders import problem
from tests.given.servers import Server
from tests.given.shops import Shop


def component(shop: Shop, **body: Any) -> httpx2.Response:
    path = f"{shop.tenant.path}/projects/{shop.project}/components"
    return shop.tenant.client.post(path, json={"name": "other", "type": "service", **body})


def test_a_component_is_shown_as_it_was_made_and_listed_by_filters(shop: Shop) -> None:
    assert component(shop, type="event-handler", repository={"directory": "/jobs/"}).status_code == 201
    shown = shop.call("GET", "", 200).json()
    assert (shown["displayName"], shown["autoBuild"], shown["autoDeploy"]) == ("web", True, False)
    assert shown["environments"] == []
    path = f"{shop.tenant.path}/components"
    assert [item["name"] for item in shop.tenant.client.get(path).json()["items"]] == ["other", "web"]
    only = shop.tenant.client.get(path, params={"type": "event-handler", "project": shop.project}).json()["items"]
    assert [(item["name"], item["repository"]["directory"]) for item in only] == [("other", "jobs")]
    page = shop.tenant.client.get(path, params={"limit": 1}).json()
    rest = shop.tenant.client.get(path, params={"limit": 1, "cursor": page["next"]}).json()
    assert [item["name"] for item in rest["items"]] == ["web"]


def test_a_name_that_is_taken_or_not_legal_is_refused(shop: Shop) -> None:
    assert problem(component(shop, name="web"))["code"] == "AlreadyExists"
    refused = component(shop, name="My_Service")
    assert (refused.status_code, problem(refused)["hint"]) == (422, "for example my-service")
    again = shop.tenant.client.post(f"{shop.tenant.path}/projects", json={"name": shop.project})
    assert problem(again)["code"] == "AlreadyExists"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"type": "servce"}, "type"),
        ({"repository": {"url": "https://u:p@example.com/a.git"}}, "repository.url"),
        ({"repository": {"url": "file:///etc"}}, "repository.url"),
        ({"repository": {"brnch": "main"}}, "repository.brnch"),
        ({"repository": {"credential": "none"}}, "repository.credential"),
        ({"buildConfigs": {"buildPackLangVerson": "3"}}, "buildConfigs.buildPackLangVerson"),
        ({"buildConfigs": {"port": 99999}}, "buildConfigs.port"),
        ({"buildEnvironment": {"A-B": "1"}}, "buildEnvironment.A-B"),
        ({"displayName": "a\nb"}, "displayName"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(shop: Shop, body: dict[str, Any], field: str) -> None:
    refused = component(shop, **body)
    assert refused.status_code == 422, refused.text
    assert field in [item["field"] for item in problem(refused)["violations"]]


def test_a_change_leaves_what_it_does_not_name(shop: Shop) -> None:
    shown = shop.call("GET", "", 200)
    change = {"repository": {"branch": "next"}, "autoDeploy": True, "description": "sells"}
    tag = shown.headers["etag"]
    changed = shop.call("PATCH", "", 200, json=change, headers={"If-Match": tag}).json()
    assert changed["repository"] == shown.json()["repository"] | {"branch": "next"}
    assert (changed["autoDeploy"], changed["buildConfigs"]) == (True, shown.json()["buildConfigs"])
    late = shop.call("PATCH", "", 412, json={"description": "x"}, headers={"If-Match": tag})
    assert problem(late)["code"] == "PreconditionFailed"
    hosted = shop.call("PATCH", "", 200, json={"repository": {"url": None}}).json()
    assert hosted["repository"]["url"] is None


def test_the_value_of_a_credential_is_never_shown_and_goes_only_to_the_builder(shop: Shop) -> None:
    path = f"{shop.tenant.path}/credentials"
    body = {"name": "forge", "kind": "token", "username": "ada", "token": "s3cr3t-token"}
    made = shop.tenant.client.post(path, json=body)
    assert made.status_code == 201
    assert "s3cr3t" not in made.text + shop.tenant.client.get(path).text + shop.tenant.client.get(f"{path}/forge").text
    shop.call("PATCH", "", 200, json={"repository": {"credential": "forge"}})
    shop.call("POST", "/builds", 201, json={})
    order = shop.builder.lease_of(shop.project)
    assert order.credential is not None
    assert (order.credential.username, order.credential.token) == ("ada", "s3cr3t-token")
    assert problem(shop.tenant.client.delete(f"{path}/forge"))["code"] == "InUse"
    shop.call("PATCH", "", 200, json={"repository": {"credential": None}})
    assert shop.tenant.client.delete(f"{path}/forge").status_code == 204
    wrong = shop.tenant.client.post(path, json={"name": "b", "kind": "deploy-key", "token": "x"})
    assert wrong.status_code == 422
    assert "x" not in [item.get("given") for item in problem(wrong)["violations"]]


def test_another_organization_sees_and_changes_nothing(server: Server, shop: Shop) -> None:
    shop.build()
    shop.deploy()
    stranger = servers.tenant(server)
    document = httpx2.get(f"{server.url}/api/v1/openapi.json", trust_env=False).json()
    deployment = shop.environment()["current"]["id"]
    names = {
        "organization": shop.tenant.name,
        "project": shop.project,
        "component": "web",
        "environment": "development",
        "build": "web-1",
        "release": deployment.split(".")[0],
        "deployment": deployment,
        "credential": "none",
        "pipeline": "default",
        "data_plane": "default",
        "token": "owner",
    }
    tried = 0
    for path, methods in document["paths"].items():
        if "{organization}" not in path:
            continue
        for method in methods:
            for organization in (shop.tenant.name, stranger.name):
                place = path.format(**(names | {"organization": organization})).removeprefix("/api/v1")
                if organization == stranger.name and "{project}" not in path:
                    continue
                answer = stranger.client.request(method, place, json={} if method in ("post", "patch") else None)
                assert answer.status_code in (404, 422), (method, place, answer.text)
                assert shop.project not in answer.text.replace(place, "") or answer.status_code == 404
                tried += 1
    assert tried > 50
    assert shop.environment()["current"]["id"] == deployment
    assert [item["name"] for item in stranger.client.get(f"{stranger.path}/components").json()["items"]] == []


def test_a_token_that_may_only_read_changes_nothing(server: Server, shop: Shop) -> None:
    made = shop.tenant.client.post(f"{shop.tenant.path}/tokens", json={"name": "reader", "readOnly": True}).json()
    reader = server.client(made["token"])
    assert reader.get(shop.path).status_code == 200
    for method, path in (("POST", "/builds"), ("POST", "/deployments"), ("DELETE", ""), ("PATCH", "")):
        body = {"environment": "development"} if path == "/deployments" else {}
        answer = reader.request(method, f"{shop.path}{path}", json=None if method == "DELETE" else body)
        assert problem(answer)["code"] == "ReadOnlyToken"
