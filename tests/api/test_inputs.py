"""What a request must not be: secrets are not told again, nothing is passed over in silence, nothing ends in a 5xx."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.given.builders import problem
from tests.given.servers import Tenant
from tests.given.shops import Shop

CANARY = "c4nary-98765432"
NUMBER = 98765432


CONFIGURATION = "{component}/environments/development/configuration"
LEAKS = [
    ("PATCH", CONFIGURATION, {"set": [{"name": "A", "kind": "secret", "value": NUMBER}]}),
    ("PATCH", CONFIGURATION, {"set": [{"name": "A", "kind": "secret", "valeu": CANARY}]}),
    ("PATCH", CONFIGURATION, {"set": [{"name": "A", "kind": "secret", "value": CANARY * 100_000}]}),
    ("PATCH", CONFIGURATION, {"set": [{"name": "A", "kind": "secret", "value": f"{CANARY}\x00"}]}),
    ("PATCH", CONFIGURATION, {"set": [CANARY]}),
    ("PATCH", CONFIGURATION, {"set": CANARY}),
    ("PATCH", CONFIGURATION, CANARY),
    ("PATCH", CONFIGURATION, [CANARY]),
    ("PATCH", CONFIGURATION, f'{{"set": [{{"value": "{CANARY}" '),
    ("POST", "{organization}/credentials", {"name": "a", "kind": "token", "token": CANARY * 400}),
    ("POST", "{organization}/credentials", {"name": "a", "kind": "token", "token": NUMBER}),
    ("POST", "{organization}/credentials", {"name": "a", "kind": "token", "token": f"{CANARY}\n"}),
    ("POST", "{organization}/credentials", {"name": "a", "kind": "token", "deployKey": CANARY}),
    ("POST", "{organization}/credentials", {"name": "a", "kind": "deploy-key", "deployKey": CANARY}),
    ("POST", "{organization}/credentials", {"name": "a", "kind": "token", "toke": CANARY}),
    ("PATCH", "{component}", {"buildEnvironment": {"KEY": NUMBER}}),
    ("PATCH", "{component}", {"buildEnvironment": {"KEY": CANARY * 300}}),
    ("PATCH", "{component}", {"repository": {"url": f"https://ada:{CANARY}@example.com:x/a"}}),
    ("PATCH", "{component}", {"repository": {"url": f"https://ada:{CANARY}@example.com/a"}}),
    ("PATCH", "{component}", {"repository": {"url": f"gopher://{CANARY}@example.com/a"}}),
    ("PATCH", "{component}", {"repository": {"url": f"{CANARY}:x@example.com/a"}}),
    ("PATCH", "{component}", {"repository": {"url": f"https://{CANARY}@example.com/{'a' * 600}"}}),
]


@pytest.mark.parametrize(("method", "path", "body"), LEAKS)
def test_a_secret_that_is_refused_is_not_told_again(shop: Shop, method: str, path: str, body: Any) -> None:
    place = path.format(component=shop.path, organization=shop.tenant.path)
    content = body if isinstance(body, str) and body.startswith("{") else json.dumps(body)
    for headers in ({"Content-Type": "application/json"}, {"Content-Type": "text/plain"}, {}):
        answer = shop.tenant.client.request(method, place, content=content, headers=headers)
        assert 400 <= answer.status_code < 500
        assert problem(answer)["detail"]
        assert CANARY not in answer.text
        assert str(NUMBER) not in answer.text
    assert CANARY not in shop.builder.server.log.read_text()


def test_a_value_that_is_no_secret_is_still_shown(tenant: Tenant) -> None:
    answer = tenant.client.post(f"{tenant.path}/environments", json={"name": 5})
    assert problem(answer)["violations"][0]["given"] == "5"


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
def test_a_body_that_is_not_called_json_is_an_unsupported_media_type(tenant: Tenant, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = tenant.client.post(f"{tenant.path}/environments", content=b'{"name": "qa"}', headers=headers)
    assert (answer.status_code, problem(answer)["code"]) == (415, "UnsupportedMediaType")
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert tenant.client.post(f"{tenant.path}/environments", content=b'{"name": "qa"}', headers=headers).is_success


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("{organization}/tokens?limt=3", "did you mean limit?"),
        ("{organization}/components?enviroment=x", None),
        ("{component}/deployments?enviroment=x", "did you mean environment?"),
        ("{component}/environments/development/logs?folow=true", "did you mean follow?"),
        ("{organization}/tokens?limit=3&limit=4", None),
    ],
)
def test_a_query_parameter_that_no_route_knows_is_refused(shop: Shop, path: str, hint: str | None) -> None:
    answer = shop.tenant.client.get(path.format(component=shop.path, organization=shop.tenant.path))
    assert answer.status_code == 422
    assert (problem(answer).get("hint"), len(problem(answer)["violations"])) == (hint, 1)


def test_a_body_where_none_is_taken_is_refused(shop: Shop) -> None:
    shop.call("POST", "/builds", 201, json={})
    for method, path in (("POST", "/builds/web-1/cancel"), ("POST", "/environments/development/redeploy")):
        answer = shop.call(method, path, json={"replicas": 3})
        assert (answer.status_code, problem(answer)["code"]) == (422, "UnexpectedBody")
    answer = shop.tenant.client.request("DELETE", shop.path, json={"force": True})
    assert (answer.status_code, problem(answer)["code"]) == (422, "UnexpectedBody")
    assert shop.call("GET").json()["state"] == "Active"
    shop.call("POST", "/builds/web-1/cancel", 200, json={})


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PATCH", "{component}", {"buildConfigs": {"port": True}}, "buildConfigs.port"),
        ("PATCH", "{component}", {"autoDeploy": "yes"}, "autoDeploy"),
        ("POST", "{organization}/tokens", {"name": "a", "readOnly": 1}, "readOnly"),
        ("POST", "{organization}/environments", {"name": "a", "critical": "true"}, "critical"),
        ("POST", "{component}/deployments", {"environment": "development", "replicas": True}, "replicas"),
        ("POST", "{component}/environments/development/scale", {"replicas": "2"}, "replicas"),
        ("POST", "{component}/environments/development/scale", {"replicas": 1.0}, "replicas"),
    ],
)
def test_a_value_of_another_type_is_not_made_to_fit(
    shop: Shop, method: str, path: str, body: dict[str, Any], field: str
) -> None:
    place = path.format(component=shop.path, organization=shop.tenant.path)
    answer = shop.tenant.client.request(method, place, json=body)
    assert answer.status_code == 422, answer.text
    assert {item["field"].removesuffix(".str").removesuffix(".int") for item in problem(answer)["violations"]} == {
        field
    }


@pytest.mark.parametrize(
    "key", ["\u00b2", "9" * 300, "-1", "1.5", "", "\ud800", "a\nb", "\x00", 5, None, ["x"], "\u0661"]
)
def test_a_made_up_cursor_is_refused_by_every_list(shop: Shop, key: Any) -> None:
    for place in (f"{shop.path}/builds", f"{shop.path}/deployments", f"{shop.tenant.path}/components"):
        cursor = base64.urlsafe_b64encode(json.dumps([f"/api/v1{place}", key]).encode()).decode()
        answer = shop.tenant.client.get(place, params={"cursor": cursor})
        assert answer.status_code in (200, 422), answer.text
        if place.endswith("builds"):
            assert problem(answer)["violations"][0]["field"] == "cursor"


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
def test_a_moment_outside_the_calendar_is_refused(tenant: Tenant, moment: str) -> None:
    answer = tenant.client.post(f"{tenant.path}/tokens", json={"name": "old", "expiresAt": moment})
    assert answer.status_code == 422
    assert problem(answer)["violations"][0]["field"] == "expiresAt"


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "{component}/deployments", {"environment": "a\x00"}, "environment"),
        ("POST", "{component}/deployments", {"environment": "development", "release": "a\x00"}, "release"),
        ("POST", "{component}/environments/development/rollback", {"to": "a\x00"}, "to"),
        ("POST", "{organization}/environments", {"name": "a", "dataPlane": "a\x00"}, "dataPlane"),
        ("PATCH", "{component}", {"repository": {"credential": "a\x00"}}, "repository.credential"),
        ("PATCH", "{component}/environments/development/configuration", {"unset": ["a", "b\x00"]}, "unset.1"),
        (
            "POST",
            "{project}/pushes",
            {"ref": "refs/heads/a\x00", "before": "0" * 40, "after": "1" * 40},
            "ref",
        ),
        ("POST", "{project}/pushes", {"ref": "refs/heads/\ud800", "before": "0" * 40, "after": "1" * 40}, "ref"),
    ],
)
def test_a_character_that_no_database_keeps_is_refused_by_its_field(
    shop: Shop, method: str, path: str, body: dict[str, Any], field: str
) -> None:
    project = f"{shop.tenant.path}/projects/{shop.project}"
    place = path.format(component=shop.path, organization=shop.tenant.path, project=project)
    headers = {"Content-Type": "application/json"}
    answer = shop.tenant.client.request(method, place, content=json.dumps(body), headers=headers)
    assert answer.status_code == 422, answer.text
    assert field in [item["field"] for item in problem(answer)["violations"]]
