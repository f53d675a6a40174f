"""Health checks through the API: part of a configuration's revision, checked against what would run, rolled back with it."""

from __future__ import annotations

from typing import Any

import pytest

from minuet.kernel.conditions import ConditionType, Status
from minuet.protocol.descriptor import Descriptor, Endpoint, EndpointType
from minuet.protocol.desired import Probe
from tests.given import agents
from tests.given.agents import Agent
from tests.given.builders import problem
from tests.given.shops import Shop

WHERE = "/environments/development"
PATH = f"{WHERE}/configuration"
DEFAULTS = {
    "kind": "http",
    "port": None,
    "path": "/",
    "failureThreshold": 3,
    "successThreshold": 1,
    "initialDelay": 0,
    "period": 30,
    "timeout": 10,
}


def change(shop: Shop, expect: int = 200, **body: Any) -> dict[str, Any]:
    shown: dict[str, Any] = shop.call("PATCH", PATH, expect, json=body).json()
    return shown


def refused(shop: Shop, health: Any, **more: Any) -> dict[str, str]:
    """Field and message of what is wrong."""
    found = problem(shop.call("PATCH", PATH, 422, json={"health": health, **more}))
    return {item["field"]: item["message"] for item in found["violations"]}


def test_a_check_is_a_revision_and_the_same_again_is_none(shop: Shop) -> None:
    assert shop.call("GET", PATH, 200).json()["health"] is None
    shown = change(shop, health={"path": "/healthz"})
    assert (shown["revision"], shown["health"]) == (1, DEFAULTS | {"path": "/healthz"})
    assert change(shop, health={"path": "/healthz", "period": 30})["revision"] == 1
    assert shop.call("GET", PATH, 200).json()["health"] == shown["health"]
    assert change(shop, set=[{"name": "A", "value": "1"}])["health"] == shown["health"], "what is not named stays"
    whole = change(shop, health={"kind": "tcp"})
    assert whole["health"] == DEFAULTS | {"kind": "tcp", "path": None}, "a new one replaces the old one as a whole"
    assert change(shop, health=None)["health"] is None
    assert change(shop, health=None)["revision"] == 4


def test_a_change_based_on_an_older_check_is_refused(shop: Shop) -> None:
    tag = shop.call("GET", PATH, 200).headers["etag"]
    shop.call("PATCH", PATH, 200, json={"health": {}}, headers={"If-Match": tag})
    late = shop.call("PATCH", PATH, 412, json={"health": None}, headers={"If-Match": tag})
    assert problem(late)["code"] == "PreconditionFailed"


@pytest.mark.parametrize(
    ("health", "field"),
    [
        ({"path": "healthz"}, "health.path"),
        ({"path": "/a b"}, "health.path"),
        ({"path": "/a\r\nHost: evil"}, "health.path"),
        ({"path": "/a#b"}, "health.path"),
        ({"path": "/é"}, "health.path"),
        ({"path": "/" + "a" * 500}, "health.path"),
        ({"kind": "tcp", "path": "/"}, "health.path"),
        ({"kind": "exec"}, "health.kind"),
        ({"port": 0}, "health.port"),
        ({"port": 65536}, "health.port"),
        ({"failureThreshold": 0}, "health.failureThreshold"),
        ({"successThreshold": 11}, "health.successThreshold"),
        ({"initialDelay": -1}, "health.initialDelay"),
        ({"period": 0}, "health.period"),
        ({"period": 1.5}, "health.period"),
        ({"timeout": 61}, "health.timeout"),
        ({"paht": "/"}, "health.paht"),
        ("/healthz", "health"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(shop: Shop, health: Any, field: str) -> None:
    assert field in refused(shop, health)
    assert shop.call("GET", PATH, 200).json()["revision"] == 0


def test_it_reaches_the_data_plane_as_a_deployment_and_is_shown_with_it(shop: Shop, agent: Agent) -> None:
    shop.build()
    bare = agent.until(shop.deploy_ready(agent)["current"]["id"])
    assert bare.health is None
    made = change(shop, health={"path": "/healthz", "initialDelay": 5})["deployment"]
    document = agent.until(made)
    assert document.health == Probe(port=8080, path="/healthz", initial_delay=5)
    assert document.template != bare.template
    shown = shop.environment()
    assert (shown["current"]["action"], shown["health"]["path"]) == ("configure", "/healthz")
    change(shop, health=None, apply=False)
    assert shop.environment()["health"]["path"] == "/healthz", "what is not deployed is not in force"


def test_a_rollback_brings_the_check_back_with_its_configuration(shop: Shop, agent: Agent) -> None:
    change(shop, health={"path": "/one"})
    shop.build()
    good = agent.until(shop.deploy_ready(agent)["current"]["id"])
    bad = agent.until(change(shop, health={"path": "/two"})["deployment"])
    failed = (ConditionType.READY, Status.FALSE, "ProbeFailed")
    agent.report(agents.observed(bad, failed, serving_generation=good.generation))
    shop.until("development", lambda shown: shown["phase"] == "Failed")
    back = shop.call("POST", f"{WHERE}/rollback", 201).json()
    document = agent.until(back["id"])
    assert document.health == good.health
    assert document.template == good.template
    assert shop.environment()["health"]["path"] == "/one"


def test_environments_have_checks_of_their_own(shop: Shop) -> None:
    change(shop, health={"path": "/healthz"})
    assert shop.call("GET", "/environments/production/configuration", 200).json()["health"] is None


def test_a_port_that_no_endpoint_has_is_refused_at_once_where_something_is_deployed(shop: Shop, agent: Agent) -> None:
    shop.build(Descriptor(endpoints=(Endpoint(name="a", port=9000), Endpoint(name="b", port=9001, base_path="/b"))))
    shop.deploy_ready(agent)
    found = problem(shop.call("PATCH", PATH, 422, json={"health": {"port": 8080}}))
    assert found["code"] == "HealthCheckUnfit"
    (violation,) = found["violations"]
    assert (violation["field"], violation["given"], violation["allowed"]) == ("health.port", "8080", ["9000", "9001"])
    assert shop.call("GET", PATH, 200).json()["revision"] == 0, "nothing of it is kept"
    assert agent.until(change(shop, health={"port": 9001})["deployment"]).health == Probe(port=9001)


def test_a_port_that_no_endpoint_has_is_refused_when_it_is_to_be_deployed(shop: Shop) -> None:
    change(shop, health={"port": 9000})
    shop.build()
    found = shop.deploy(expect=422)
    assert (found["code"], found["violations"][0]["field"]) == ("HealthCheckUnfit", "health.port")
    change(shop, health={"path": "/healthz"})
    assert shop.deploy()["configRevision"] == 2


def test_a_check_of_http_needs_an_endpoint_that_speaks_it(shop: Shop) -> None:
    change(shop, health={"path": "/healthz"})
    shop.build(Descriptor(endpoints=(Endpoint(name="raw", port=9000, type=EndpointType.TCP),)))
    assert shop.deploy(expect=422)["violations"][0]["field"] == "health.kind"
    change(shop, health={"kind": "tcp"})
    shop.deploy()
