"""Configurations through the API: revisions, secrets that are never shown, and what reaches the data plane."""

from __future__ import annotations

from typing import Any

import pytest

from minuet.kernel.errors import Forbidden
from minuet.protocol.desired import EnvironmentVariable, Workload
from minuet.protocol.sealing import unseal
from tests.given import agents
from tests.given.agents import Agent
from tests.given.builders import problem
from tests.given.servers import Server
from tests.given.shops import Shop

PATH = "/environments/development/configuration"
SECRET = "t0p-s3cret-value"


def change(shop: Shop, *entries: dict[str, Any], expect: int = 200, **more: Any) -> dict[str, Any]:
    shown: dict[str, Any] = shop.call("PATCH", PATH, expect, json={"set": list(entries), **more}).json()
    return shown


def variable(document: Workload, name: str) -> EnvironmentVariable:
    return next(item for item in document.environment_variables if item.name == name)


def test_each_change_is_a_revision_and_the_same_again_is_none(shop: Shop) -> None:
    assert shop.call("GET", PATH, 200).json() == {"revision": 0, "entries": [], "health": None}
    assert change(shop, {"name": "A", "value": "1"})["revision"] == 1
    assert change(shop, {"name": "A", "value": "1"})["revision"] == 1
    secret = {"name": "KEY", "kind": "secret", "value": SECRET}
    assert change(shop, secret)["revision"] == 2
    assert change(shop, secret)["revision"] == 2, "also a secret that is set again to what it is"
    shown = change(shop, unset=["A"])
    assert (shown["revision"], [entry["name"] for entry in shown["entries"]]) == (3, ["KEY"])


def test_a_secret_is_never_shown_and_not_kept_in_the_clear(shop: Shop, server: Server) -> None:
    answer = shop.call(
        "PATCH",
        PATH,
        200,
        json={
            "set": [
                {"name": "KEY", "kind": "secret", "value": SECRET},
                {"name": "key.pem", "kind": "secret-file", "value": SECRET, "mountPath": "/app/key.pem"},
            ]
        },
    )
    assert SECRET not in answer.text
    assert SECRET not in shop.call("GET", PATH, 200).text
    for file in server.data.glob("minuet.db*"):
        assert SECRET.encode() not in file.read_bytes()
    assert SECRET not in server.log.read_text()


def test_secrets_reach_the_data_plane_sealed_for_it_and_stay_the_same_document(shop: Shop, agent: Agent) -> None:
    change(shop, {"name": "KEY", "kind": "secret", "value": SECRET}, {"name": "PLAIN", "value": "p"})
    shop.build()
    first = agent.until(shop.deploy_ready(agent)["current"]["id"])
    sealed = variable(first, "KEY").sealed
    assert sealed is not None
    assert unseal(agent.sealing_key, sealed.ciphertext, f"{first.key}/KEY").reveal() == SECRET
    scaled = agent.until(shop.call("POST", "/environments/development/scale", 201, json={"replicas": 2}).json()["id"])
    assert variable(scaled, "KEY") == variable(first, "KEY")
    made = change(shop, {"name": "PLAIN", "value": "q"})["deployment"]
    configured = agent.until(made)
    assert variable(configured, "KEY") == variable(first, "KEY")
    assert configured.template != first.template
    assert shop.environment()["current"]["action"] == "configure"


def test_secrets_are_sealed_again_for_a_plane_that_has_a_new_key(server: Server, shop: Shop) -> None:
    change(shop, {"name": "KEY", "kind": "secret", "value": SECRET})
    shop.build()
    with agents.agent(server) as before:
        before.project = shop.project
        made = shop.deploy_ready(before)["current"]["id"]
        before.until(made)
    with agents.agent(server) as after:
        after.project = shop.project
        while True:
            document = after.until(made)
            sealed = variable(document, "KEY").sealed
            assert sealed is not None
            try:
                assert unseal(after.sealing_key, sealed.ciphertext, f"{document.key}/KEY").reveal() == SECRET
                break
            except Forbidden:
                after.receive()


def test_without_apply_or_a_deployment_nothing_is_deployed(shop: Shop, agent: Agent) -> None:
    assert change(shop, {"name": "A", "value": "1"})["deployment"] is None
    shop.build()
    current = shop.deploy_ready(agent)["current"]["id"]
    assert change(shop, {"name": "A", "value": "2"}, apply=False)["deployment"] is None
    assert shop.environment()["current"]["id"] == current
    assert change(shop, {"name": "A", "value": "2"})["deployment"] is None, "nothing changed"


def test_a_change_based_on_an_older_state_is_refused(shop: Shop) -> None:
    tag = shop.call("GET", PATH, 200).headers["etag"]
    body = {"set": [{"name": "A", "value": "1"}]}
    shop.call("PATCH", PATH, 200, json=body, headers={"If-Match": tag})
    late = shop.call("PATCH", PATH, 412, json={"unset": ["A"]}, headers={"If-Match": tag})
    assert problem(late)["code"] == "PreconditionFailed"


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"name": "PORT", "value": "1"}, "set.0.name"),
        ({"name": "MINUET_X", "value": "1"}, "set.0.name"),
        ({"name": "1A", "value": "1"}, "set.0.name"),
        ({"name": "A-B", "value": "1"}, "set.0.name"),
        ({"name": "A", "value": "x" * (32 * 1024 + 1)}, "set.0.value"),
        ({"name": "A", "value": "a\x00b"}, "set.0.value"),
        ({"name": "A", "value": "1", "mountPath": "/app/a"}, "set.0.mountPath"),
        ({"name": "a", "kind": "file", "value": "1"}, "set.0.mountPath"),
        ({"name": "a", "kind": "file", "value": "1", "mountPath": "app/a"}, "set.0.mountPath"),
        ({"name": "a", "kind": "file", "value": "1", "mountPath": "/app/../etc/passwd"}, "set.0.mountPath"),
        ({"name": "a", "kind": "file", "value": "1", "mountPath": "/proc/self/mem"}, "set.0.mountPath"),
        ({"name": "a/b", "kind": "file", "value": "1", "mountPath": "/app/a"}, "set.0.name"),
        ({"name": "A", "kind": "secrt", "value": "1"}, "set.0.kind"),
        ({"name": "A", "valu": "1"}, "set.0.valu"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(shop: Shop, entry: dict[str, Any], field: str) -> None:
    refused = shop.call("PATCH", PATH, 422, json={"set": [entry]})
    assert field in [item["field"] for item in problem(refused)["violations"]]
    assert shop.call("GET", PATH, 200).json()["revision"] == 0


def test_names_twice_clashing_files_and_unknown_names_are_refused(shop: Shop) -> None:
    one = {"name": "a", "kind": "file", "value": "1", "mountPath": "/app/a"}
    change(shop, one, {"name": "b", "kind": "file", "value": "1", "mountPath": "/app/a/b"}, expect=422)
    change(shop, one, one, expect=422)
    refused = shop.call("PATCH", PATH, 404, json={"unset": ["NOPE"]})
    assert problem(refused)["code"] == "ConfigurationNotFound"
    many = [{"name": f"V{number}", "value": "x" * 30_000} for number in range(18)]
    assert problem(shop.call("PATCH", PATH, 429, json={"set": many}))["family"] == "Exhausted"
