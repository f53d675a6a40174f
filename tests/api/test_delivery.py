"""The journey through the API: built, deployed, observed, promoted, rolled back; with real peers on both sides."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pytest

from minuet.kernel import names
from minuet.kernel.conditions import ConditionType, Status
from minuet.protocol.descriptor import ConfigField, Descriptor, Endpoint, EndpointType, Visibility
from minuet.protocol.frames import LogAnswer, LogLine, LogQuery, Observed
from minuet.protocol.observed import PlaneReport
from tests.given import agents, shops
from tests.given.agents import Agent
from tests.given.builders import Builder, problem
from tests.given.servers import Server, Tenant
from tests.given.shops import Shop, eventually


@pytest.fixture
def builder(server: Server) -> Builder:
    made = Builder(server)
    made.register()
    return made


@pytest.fixture
def shop(tenant: Tenant, builder: Builder) -> Shop:
    return shops.shop(tenant, builder)


@pytest.fixture
def agent(server: Server, shop: Shop) -> Iterator[Agent]:
    with agents.agent(server) as connected:
        connected.project = shop.project
        yield connected


def test_a_build_becomes_a_deployment_that_is_ready_when_the_agent_says_so(shop: Shop, agent: Agent) -> None:
    build = shop.build()
    made = shop.deploy(build=build)
    document = agent.until(made["id"])
    assert document.replicas == 1
    assert document.command == "python app.py"
    assert document.ports == (8080,)
    assert shop.until("development", lambda shown: shown["phase"] == "Progressing")

    agent.report_ready(document)
    shown = shop.until("development", lambda shown: shown["phase"] == "Ready")
    label = names.host_label(shop.tenant.name, shop.project, "web", "development")
    assert shown["url"] == f"http://{label}.localhost:8480/"
    assert shown["serving"] == {"deployment": made["id"], "release": made["release"]}
    assert {item["type"]: item["status"] for item in shown["conditions"]} == dict.fromkeys(
        ("Accepted", "Delivered", "Fetched", "Started", "Healthy", "Routed", "Ready", "InForce"), "True"
    )


def test_promotion_needs_the_release_to_have_been_ready_before(shop: Shop, agent: Agent) -> None:
    build = shop.build()
    refused = shop.deploy("production", 409, build=build)
    assert refused["code"] == "NotPromotable"
    made = shop.deploy(build=build)
    agent.until(made["id"])
    assert shop.deploy("production", 409, build=build)["code"] == "NotPromotable", "delivered is not ready"

    agent.report_ready(agent.until(made["id"]))
    shop.until("development", lambda shown: shown["phase"] == "Ready")
    promoted = shop.deploy("Production", build=build)
    assert (promoted["action"], promoted["release"]) == ("promote", made["release"])
    assert promoted["id"] != made["id"]
    document = agent.until(promoted["id"])
    assert document.artifact.digest == agent.until(made["id"]).artifact.digest


def test_rollback_brings_back_release_configuration_and_endpoints(shop: Shop, agent: Agent) -> None:
    shop.call("PATCH", "/environments/development/configuration", 200, json={"set": [{"name": "MODE", "value": "one"}]})
    first = Descriptor(endpoints=(Endpoint(name="a", port=9000, base_path="/a"),))
    shop.build(first)
    shop.deploy_ready(agent)
    good = agent.until(shop.environment()["current"]["id"])
    change = {"set": [{"name": "MODE", "value": "two"}], "apply": False}
    shop.call("PATCH", "/environments/development/configuration", 200, json=change)
    shop.build(Descriptor(endpoints=(Endpoint(name="b", port=9001, base_path="/b"),)))
    bad = shop.deploy()
    assert agent.until(bad["id"]).routes[0].base_path == "/b"

    back = shop.call("POST", "/environments/development/rollback", 201).json()
    document = agent.until(back["id"])
    assert (back["action"], back["generation"]) == ("rollback", 3)
    assert document.template == good.template, "the same instances may go on"
    assert document.routes == good.routes
    assert [item.value for item in document.environment_variables if item.name == "MODE"] == ["one"]


def test_rollback_twice_goes_back_further_and_ends_when_there_is_nothing(shop: Shop, agent: Agent) -> None:
    releases = []
    for _ in range(3):
        shop.build()
        releases.append(shop.deploy_ready(agent)["current"]["release"])
    path = "/environments/development/rollback"
    assert shop.call("POST", path, 201).json()["release"] == releases[1]
    assert shop.call("POST", path, 201).json()["release"] == releases[0]
    assert problem(shop.call("POST", path, 409))["code"] == "NothingToRollBackTo"
    named = shop.call("POST", path, 201, json={"to": releases[2]}).json()
    assert named["release"] == releases[2]
    assert problem(shop.call("POST", path, 404, json={"to": "20200101-1"}))["code"] == "DeploymentNotFound"


def test_scaling_keeps_the_template_and_redeploying_changes_it(shop: Shop, agent: Agent) -> None:
    shop.build()
    before = agent.until(shop.deploy_ready(agent)["current"]["id"])
    scaled = shop.call("POST", "/environments/development/scale", 201, json={"replicas": 3}).json()
    document = agent.until(scaled["id"])
    assert (document.replicas, document.template) == (3, before.template)
    again = shop.call("POST", "/environments/development/redeploy", 201).json()
    assert agent.until(again["id"]).template != before.template
    assert shop.call("POST", "/environments/development/scale", 422, json={"replicas": 11})


def test_suspended_keeps_its_address_and_resumes_as_it_was(shop: Shop, agent: Agent) -> None:
    shop.build()
    shop.deploy_ready(agent, replicas=2)
    verbs = "/environments/development"
    document = agent.until(shop.call("POST", f"{verbs}/suspend", 201).json()["id"])
    assert (document.replicas, len(document.routes)) == (0, 1)
    assert shop.environment()["phase"] != "Suspended", "it may still run"
    agent.report(agents.observed(document, (ConditionType.READY, Status.FALSE, "Suspended")))
    shop.until("development", lambda shown: shown["phase"] == "Suspended")
    assert problem(shop.call("POST", f"{verbs}/redeploy", 409))["code"] == "Suspended"
    assert problem(shop.call("POST", f"{verbs}/suspend", 409))["code"] == "AlreadySuspended"
    resumed = shop.call("POST", f"{verbs}/resume", 201).json()
    assert agent.until(resumed["id"]).replicas == 2
    assert problem(shop.call("POST", f"{verbs}/resume", 409))["code"] == "NotSuspended"


def test_a_failure_tells_its_reason_next_step_and_last_lines_while_the_old_version_serves(
    shop: Shop, agent: Agent
) -> None:
    shop.build()
    good = shop.deploy_ready(agent)["current"]
    shop.build()
    bad = shop.deploy()
    report = agents.observed(
        agent.until(bad["id"]), (ConditionType.READY, Status.FALSE, "ExitedAtOnce"), serving_generation=1
    )
    told = report.conditions[0].model_copy(update={"log_tail": ("no database",)})
    agent.report(report.model_copy(update={"conditions": (told,)}))
    shown = shop.until("development", lambda shown: shown["phase"] == "Failed")
    ready = next(item for item in shown["conditions"] if item["type"] == "Ready")
    assert (ready["reason"], ready["logTail"]) == ("ExitedAtOnce", ["no database"])
    assert ready["nextStep"]
    assert shown["serving"] == {"deployment": good["id"], "release": good["release"]}


def test_what_is_known_is_unknown_while_the_link_is_down(server: Server, shop: Shop) -> None:
    with agents.agent(server) as agent:
        agent.project = shop.project
        shop.build()
        shop.deploy_ready(agent)
        serving = shop.environment()["serving"]
    shown = shop.until("development", lambda shown: shown["phase"] == "Unknown")
    assert shown["unknownSince"]
    ready = next(item for item in shown["conditions"] if item["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("Unknown", "PlaneUnreachable")
    assert shown["serving"] == serving, "what was seen last is shown, with since when it is not known"


def test_a_superseded_deployment_keeps_its_story(shop: Shop, agent: Agent) -> None:
    shop.build()
    first = shop.deploy_ready(agent)["current"]["id"]
    shop.call("POST", "/environments/development/redeploy", 201)
    shown = shop.call("GET", f"/deployments/{first}", 200).json()
    assert shown["phase"] == "Superseded"
    told = {item["type"]: (item["status"], item["reason"]) for item in shown["conditions"]}
    assert told["Healthy"] == ("True", "Healthy")
    assert told["Ready"] == ("False", "Superseded")


def test_undeploying_removes_the_document_and_ends_when_the_agent_says_so(shop: Shop, agent: Agent) -> None:
    shop.build()
    document = agent.until(shop.deploy_ready(agent)["current"]["id"])
    shown = shop.call("DELETE", "/environments/development", 202).json()
    assert (shown["current"], shown["removing"]) == (None, True)
    tombstone = agent.until_removed(document.key)
    assert "owner" in (tombstone.confirmed_by or "")
    agent.report(agents.observed(document, removed=True))
    shop.until("development", lambda shown: not shown["removing"])
    assert problem(shop.call("POST", "/environments/development/redeploy", 404))["code"] == "NotDeployed"
    assert shop.deploy()["generation"] == 2, "generations never start again"


def test_a_deleted_component_goes_when_nothing_of_it_runs(shop: Shop, agent: Agent) -> None:
    shop.build()
    document = agent.until(shop.deploy_ready(agent)["current"]["id"])
    shown = shop.call("DELETE", "", 202).json()
    assert (shown["state"], shown["heldBy"]) == ("Deleting", ["it runs in development"])
    assert (
        problem(shop.call("POST", "/deployments", 409, json={"environment": "development"}))["code"] == "BeingDeleted"
    )
    agent.until_removed(document.key)
    assert shop.call("GET", "", 200)
    agent.report(agents.observed(document, removed=True))
    eventually(lambda: shop.call("GET").status_code == 404)


def test_a_component_that_was_never_deployed_goes_at_once(shop: Shop) -> None:
    shop.call("DELETE", "", 202)
    eventually(lambda: shop.call("GET").status_code == 404)
    shop.tenant.client.delete(f"{shop.tenant.path}/projects/{shop.project}")
    eventually(lambda: shop.tenant.client.get(f"{shop.tenant.path}/projects/{shop.project}").status_code == 404)


def test_descriptor_values_that_are_missing_refuse_a_deployment_by_name(shop: Shop) -> None:
    shop.build(Descriptor(environment=(ConfigField(name="DB_URL"), ConfigField(name="HINT", required=False))))
    refused = shop.deploy(expect=422)
    assert refused["code"] == "ConfigurationMissing"
    assert [item["field"] for item in refused["violations"]] == ["configuration.DB_URL"]
    shop.call("PATCH", "/environments/development/configuration", 200, json={"set": [{"name": "DB_URL", "value": "x"}]})
    shop.deploy()


def test_what_is_declared_but_not_in_force_is_said(shop: Shop, agent: Agent) -> None:
    internal = Endpoint(name="db", port=5432, type=EndpointType.TCP, visibilities=(Visibility.PROJECT,))
    shop.build(Descriptor(endpoints=(Endpoint(name="api", port=9000), internal)))
    agent.until(shop.deploy()["id"])
    shown = shop.until("development", lambda shown: any(item["type"] == "InForce" for item in shown["conditions"]))
    told = next(item for item in shown["conditions"] if item["type"] == "InForce")
    assert (told["status"], told["reason"]) == ("False", "NotYetInForce")
    assert "db" in told["message"]


def test_there_is_nothing_to_deploy_before_a_build_succeeded(shop: Shop) -> None:
    assert shop.deploy(expect=409)["code"] == "NothingBuilt"
    waiting = shop.call("POST", "/builds", 201, json={}).json()["id"]
    assert shop.deploy(expect=409, build=waiting)["code"] == "BuildNotFinished"
    shop.builder.fail(shop.builder.lease_of(shop.project), "CompileFailed")
    assert shop.deploy(expect=409, build=waiting)["code"] == "BuildNotDeployable"
    assert shop.deploy(expect=404, build="web-99")["code"] == "BuildNotFound"


def test_the_stream_of_an_environment_tells_each_change_at_once(shop: Shop, agent: Agent) -> None:
    shop.build()
    made = shop.deploy()
    document = agent.until(made["id"])
    with shop.tenant.client.stream("GET", f"{shop.path}/environments/development/events") as answer:
        phases = (json.loads(line[6:])["phase"] for line in answer.iter_lines() if line.startswith("data: "))
        assert next(phases) in ("Pending", "Progressing")
        started = time.monotonic()
        agent.report_ready(document)
        assert "Ready" in phases
        assert time.monotonic() - started < 1.0


def test_logs_are_passed_on_from_the_agent_as_it_answers(shop: Shop, agent: Agent) -> None:
    shop.build()
    document = agent.until(shop.deploy_ready(agent)["current"]["id"])
    told: list[str] = []

    def read() -> None:
        path = f"{shop.path}/environments/development/logs"
        with shop.tenant.client.stream("GET", path, params={"tail": 5, "instance": "i1"}) as answer:
            told.extend(answer.iter_lines())

    reader = threading.Thread(target=read)
    reader.start()
    query = agent.until_asked()
    assert (query.key, query.tail, query.instance, query.follow) == (document.key, 5, "i1", False)
    line = LogLine(time="2026-11-24T12:00:00Z", stream="stdout", instance="i1", message="served /")
    agent.link.send(LogAnswer(id=query.id, lines=(line,), done=True).wire())
    reader.join(10)
    kinds = [text[7:] for text in told if text.startswith("event: ")]
    data = [json.loads(text[6:]) for text in told if text.startswith("data: ")]
    assert (kinds, data[0]["message"]) == (["line", "end"], "served /")


def test_the_moment_to_read_logs_from_is_passed_on_in_utc_and_its_lines_resume_after_an_id(
    shop: Shop, agent: Agent
) -> None:
    shop.build()
    agent.until(shop.deploy_ready(agent)["current"]["id"])
    path = f"{shop.path}/environments/development/logs"
    told: list[str] = []

    def read(since: str | None, last: str | None) -> LogQuery:
        headers = {} if last is None else {"Last-Event-ID": last}

        def ask() -> None:
            params = {} if since is None else {"since": since}
            with shop.tenant.client.stream("GET", path, params=params, headers=headers) as answer:
                told.extend(answer.iter_lines())

        reader = threading.Thread(target=ask)
        reader.start()
        query = agent.until_asked()
        line = LogLine(time="2026-11-24T12:00:00.000Z", stream="stdout", instance="i1", message="x")
        agent.link.send(LogAnswer(id=query.id, lines=(line,), done=True).wire())
        reader.join(10)
        return query

    assert read("2026-11-24T14:30:00+02:00", None).since == "2026-11-24T12:30:00.000Z"
    [last] = [text[4:] for text in told if text.startswith("id: ")]
    assert (last, read(None, last).since) == ("2026-11-24T12:00:00.000Z", last)
    for wrong in ("yesterday", "2026-11-24T12:00:00", "0001-01-01T00:00:00+12:00"):
        answer = shop.tenant.client.get(path, params={"since": wrong})
        assert (answer.status_code, problem(answer)["violations"][0]["field"]) == (422, "since")
    assert shop.tenant.client.get(path, headers={"Last-Event-ID": "x"}).status_code == 422


def test_verbs_notice_that_somebody_was_faster(shop: Shop, agent: Agent) -> None:
    shop.build()
    place = "/environments/development"
    never = shop.call("GET", place, 200).headers["etag"]
    shop.deploy_ready(agent)
    tag = shop.call("GET", place, 200).headers["etag"]
    assert never != tag
    scaled = shop.call("POST", f"{place}/scale", 201, json={"replicas": 2}, headers={"If-Match": tag})
    assert scaled.headers["etag"] == shop.call("GET", place, 200).headers["etag"]
    for verb, body in (
        ("rollback", {}),
        ("redeploy", None),
        ("scale", {"replicas": 1}),
        ("suspend", None),
        ("resume", None),
    ):
        late = shop.call("POST", f"{place}/{verb}", 412, json=body, headers={"If-Match": tag})
        assert problem(late)["code"] == "PreconditionFailed"
    assert problem(shop.call("DELETE", place, 412, headers={"If-Match": tag}))["code"] == "PreconditionFailed"
    now = {"If-Match": scaled.headers["etag"]}
    suspended = shop.call("POST", f"{place}/suspend", 201, headers=now)
    assert shop.call("DELETE", place, 202, headers={"If-Match": suspended.headers["etag"]})


def test_a_shared_plane_tells_only_operators_of_what_concerns_others(server: Server, shop: Shop, agent: Agent) -> None:
    report = PlaneReport(
        isolation="sandbox",
        gateway_ready=True,
        gateway_url=agents.GATEWAY,
        agent_version="0.1.0",
        warnings=("cmp_of_another/env_of_another is too odd",),
    )
    agent.sequence += 1
    agent.link.send(Observed(sequence=agent.sequence, report=report).wire())
    path = "/data-planes/default"
    full = eventually(
        lambda: (found := server.client().get(f"/organizations/default{path}").json())["warnings"] and found
    )
    assert full["warnings"] == ["cmp_of_another/env_of_another is too odd"]
    assert full["revision"] is not None
    shown = shop.tenant.client.get(f"{shop.tenant.path}{path}")
    assert "of_another" not in shown.text
    assert shown.json()["warnings"] == ["the data plane has 1 warnings, which its operators see"]
    assert [shown.json()[name] for name in ("epoch", "revision", "acknowledgedRevision")] == [None] * 3
    assert {item["generation"] for item in shown.json()["conditions"]} == {0}
    assert "session" not in str(shown.json()["conditions"])


def test_the_stream_of_an_environment_ends_with_its_component(shop: Shop) -> None:
    told: list[str] = []

    def read() -> None:
        with shop.tenant.client.stream("GET", f"{shop.path}/environments/development/events") as answer:
            for line in answer.iter_lines():
                told.append(line)  # noqa: PERF402 - each one as it comes

    reader = threading.Thread(target=read)
    reader.start()
    eventually(lambda: "event: environment" in told)
    shop.call("DELETE", "", 202)
    eventually(lambda: shop.call("GET").status_code == 404)
    reader.join(15)
    assert [line for line in told if line.startswith("event: ")][-1] == "event: end"


def test_logs_are_unavailable_without_a_link(server: Server, shop: Shop) -> None:
    assert problem(shop.call("GET", "/environments/development/logs", 404))["code"] == "NotDeployed"
    shop.build()
    shop.deploy()
    refused = shop.call("GET", "/environments/development/logs")
    assert (refused.status_code, problem(refused)["family"]) == (503, "Unavailable")


def test_a_component_summarises_its_environments(shop: Shop, agent: Agent) -> None:
    shop.build()
    shown = shop.deploy_ready(agent)
    summary = shop.call("GET", "", 200).json()["environments"]
    assert [(item["environment"], item["phase"], item["url"]) for item in summary] == [
        ("development", "Ready", shown["url"])
    ]
