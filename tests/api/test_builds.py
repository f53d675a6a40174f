"""Builds through the API, with a real builder of the protocol on the other side."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator

import pytest

from minuet.protocol.building import Phase, PhaseName, PhaseState
from minuet.protocol.signing import Signer, new_signing_key, read_ticket
from tests.given import shops
from tests.given.builders import JSON, Builder, problem
from tests.given.servers import Server, Tenant, free_port
from tests.given.shops import Shop


@pytest.fixture
def builder(server: Server) -> Builder:
    made = Builder(server)
    made.register()
    return made


@pytest.fixture
def shop(tenant: Tenant, builder: Builder) -> Shop:
    return shops.shop(tenant, builder)


def test_a_build_is_queued_leased_followed_and_completed(shop: Shop) -> None:
    made = shop.call("POST", "/builds", 201, json={"commit": "a" * 40}).json()
    assert (made["id"], made["status"], made["conditions"][0]["status"]) == ("web-1", "Queued", "Unknown")
    order = shop.builder.lease_of(shop.project)
    assert (order.commit, order.repository) == ("a" * 40, "https://example.com/shop/web.git")
    assert order.config == {"buildpack": "python", "buildPackLangVersion": "3.11"}
    phase = Phase(name=PhaseName.FETCH, state=PhaseState.RUNNING)
    assert not shop.builder.progress(order, phases=(phase,), commit_message="fix it").cancelled
    shown = shop.call("GET", "/builds/web-1", 200).json()
    assert (shown["status"], shown["commitMessage"], shown["phases"][0]["name"]) == ("Building", "fix it", "fetch")
    assert shop.builder.complete(order).status_code == 204
    assert shop.builder.complete(order).status_code == 204, "handing it in again changes nothing"
    shown = shop.call("GET", "/builds/web-1", 200).json()
    assert (shown["status"], shown["conditions"][0]["status"]) == ("Succeeded", "True")
    assert shown["artifact"]["digest"].startswith("sha256:")
    assert problem(shop.call("POST", "/builds/web-1/cancel", 409))["code"] == "BuildFinished"


@pytest.mark.parametrize("commit", ["a" * 7, "a" * 39, "a" * 41, "A" * 40, "g" * 40, ""])
def test_an_abbreviated_commit_is_refused_before_it_is_fetched_in_vain(shop: Shop, commit: str) -> None:
    answer = shop.call("POST", "/builds", 422, json={"commit": commit})
    assert problem(answer)["violations"][0]["field"] == "commit"


def test_a_failure_keeps_its_reason_and_last_lines(shop: Shop) -> None:
    shop.call("POST", "/builds", 201, json={})
    order = shop.builder.lease_of(shop.project)
    shop.builder.fail(order, "CompileFailed", "app.py:1: invalid\x00 syntax", log_tail=("one", "two"))
    shown = shop.call("GET", "/builds/web-1", 200).json()
    assert (shown["status"], shown["reason"], shown["message"]) == (
        "Failed",
        "CompileFailed",
        "app.py:1: invalid syntax",
    )
    assert shown["conditions"][0]["logTail"] == ["one", "two"]
    assert shown["conditions"][0]["nextStep"] == "Correct the line named in the log."


def test_a_reason_that_nobody_knows_is_not_passed_on(shop: Shop) -> None:
    shop.call("POST", "/builds", 201, json={})
    shop.builder.fail(shop.builder.lease_of(shop.project), "Gremlins")
    assert shop.call("GET", "/builds/web-1", 200).json()["reason"] == "BuildFailed"


def test_an_artifact_that_somebody_else_signed_is_refused(shop: Shop) -> None:
    shop.call("POST", "/builds", 201, json={})
    order = shop.builder.lease_of(shop.project)
    stranger = Builder(shop.builder.server, signer=Signer(new_signing_key()))
    shop.builder.complete(order, artifact=stranger.artifact())
    shown = shop.call("GET", "/builds/web-1", 200).json()
    assert (shown["status"], shown["reason"], shown["artifact"]) == ("Failed", "ArtifactCorrupt", None)


def test_cancelling_ends_a_waiting_build_and_asks_for_the_end_of_a_running_one(shop: Shop) -> None:
    shop.call("POST", "/builds", 201, json={})
    order = shop.builder.lease_of(shop.project)
    shop.call("POST", "/builds", 201, json={})
    assert shop.call("POST", "/builds/web-2/cancel", 200).json()["status"] == "Cancelled"
    assert shop.call("POST", "/builds/web-1/cancel", 200).json()["status"] == "Building"
    assert shop.builder.progress(order).cancelled
    shop.builder.fail(order, "BuildCancelled")
    assert shop.call("GET", "/builds/web-1", 200).json()["status"] == "Cancelled"


def test_a_builder_that_starts_again_gives_its_builds_back_three_times(shop: Shop) -> None:
    shop.call("POST", "/builds", 201, json={})
    for attempt in (1, 2, 3):
        order = shop.builder.lease_of(shop.project)
        assert shop.call("GET", "/builds/web-1", 200).json()["attempts"] == attempt
        shop.builder = Builder(shop.builder.server)
        shop.builder.register()
        lost = shop.builder.client.post(f"/builder/leases/{order.lease}/progress", content="{}", headers=JSON)
        assert problem(lost)["code"] == "LeaseLost"
    shown = shop.call("GET", "/builds/web-1", 200).json()
    assert (shown["status"], shown["reason"]) == ("Failed", "BuilderLost")


def test_work_that_comes_while_a_builder_waits_is_given_at_once(shop: Shop) -> None:
    started: list[float] = []

    def ask() -> None:
        time.sleep(0.3)  # the builder's request is to be waiting by then; nothing depends on how exactly
        started.append(time.monotonic())
        shop.call("POST", "/builds", 201, json={})

    thread = threading.Thread(target=ask)
    thread.start()
    order = shop.builder.lease_of(shop.project)
    taken = time.monotonic()
    thread.join()
    assert taken - started[0] < 2.0
    shop.builder.complete(order)


def test_only_builders_reach_the_builders_routes(shop: Shop, server: Server) -> None:
    for client in (shop.tenant.client, server.client(server.credential("agent"))):
        assert problem(client.post("/builder/leases"))["code"] == "WrongCredential"
    assert problem(shop.builder.client.get(shop.path))["code"] == "WrongCredential"


def test_pushes_build_what_they_touched_and_deploy_it_if_wanted(tenant: Tenant, builder: Builder) -> None:
    shop = shops.shop(
        tenant, builder, repository={"directory": "web", "branch": "main"}, autoDeploy=True, buildConfigs={}
    )
    path = f"{tenant.path}/projects/{shop.project}"
    repository = tenant.client.get(f"{path}/repository").json()
    assert repository["cloneUrl"] == f"{builder.url}/git/{tenant.name}/{shop.project}.git"
    assert repository["writable"]

    def push(ref: str, *changed: str, after: str = "b" * 40) -> list[str]:
        body = {"ref": ref, "before": "a" * 40, "after": after, "changedPaths": list(changed)}
        answer = tenant.client.post(f"{path}/pushes", json=body)
        assert answer.status_code == 201, answer.text
        return [build["id"] for build in answer.json()["builds"]]

    assert push("refs/heads/main", "docs/index.md") == []
    assert push("refs/heads/other", "web/app.py") == []
    assert push("refs/tags/v1", "web/app.py") == []
    assert push("refs/heads/main", "web/app.py", after="0" * 40) == []
    short = {"ref": "refs/heads/main", "before": "a" * 40, "after": "b" * 7}
    assert tenant.client.post(f"{path}/pushes", json=short).status_code == 422
    whole = {"ref": "refs/heads/main", "before": "a" * 40, "after": "c" * 40, "everything": True}
    [all_of_it] = tenant.client.post(f"{path}/pushes", json=whole).json()["builds"]
    assert shop.call("POST", f"/builds/{all_of_it['id']}/cancel", 200).json()["status"] == "Cancelled"
    assert push("refs/heads/main", "web/app.py") == ["web-2"]
    order = builder.lease_of(shop.project)
    assert (order.repository, order.commit) == (None, "b" * 40)
    builder.complete(order)
    shown = shop.until("development", lambda shown: shown["current"])
    assert (shown["current"]["build"], shown["current"]["action"]) == ("web-2", "deploy")


def test_a_builder_is_told_which_builds_and_projects_there_still_are(shop: Shop) -> None:
    shop.call("POST", "/builds", 201, json={})
    order = shop.builder.lease_of(shop.project)
    asked = {"builds": [order.build, "bld_gone"], "projects": [order.project_id, "prj_gone"]}
    answer = shop.builder.client.post("/builder/held", json=asked)
    assert answer.json() == {"builds": [order.build], "projects": [order.project_id]}
    too_many = shop.builder.client.post("/builder/held", json={"builds": ["bld_1"] * 501})
    assert too_many.status_code == 422, too_many.text
    assert problem(shop.tenant.client.post("/builder/held", json=asked))["code"] == "WrongCredential"


def test_only_the_newest_builds_stay_unless_they_are_deployed(shop: Shop) -> None:
    shop.build()
    shop.deploy(build="web-1")
    for _ in range(7):
        shop.build()
    kept = [item["id"] for item in shop.call("GET", "/builds", 200).json()["items"]]
    assert kept == ["web-8", "web-7", "web-6", "web-5", "web-4", "web-1"]


def test_builds_are_listed_in_pages_newest_first(shop: Shop) -> None:
    for _ in range(3):
        shop.call("POST", "/builds", 201, json={})
    first = shop.call("GET", "/builds?limit=2", 200).json()
    assert [item["id"] for item in first["items"]] == ["web-3", "web-2"]
    second = shop.call("GET", "/builds", 200, params={"limit": 2, "cursor": first["next"]}).json()
    assert ([item["id"] for item in second["items"]], second["next"]) == (["web-1"], None)


LINES = [{"time": "2026-11-24T12:00:00Z", "stream": "stdout", "phase": "build", "message": f"line {n}"} for n in (1, 2)]


@pytest.fixture
def log_keeper(server: Server) -> Iterator[tuple[Builder, list[dict[str, str]]]]:
    """A builder whose HTTP really answers for logs, and the claims of the tickets it was shown."""
    claims: list[dict[str, str]] = []
    builder = Builder(server)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ticket = self.headers["Authorization"].removeprefix("Bearer ")
            claims.append(read_ticket(keys[0], ticket) | {"path": self.path})
            self.send_response(200)
            self.end_headers()
            self.wfile.write("".join(f"{json.dumps(line)}\n" for line in LINES).encode())

        def log_message(self, *arguments: object) -> None:
            pass

    keeper = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
    thread = threading.Thread(target=keeper.serve_forever, daemon=True)
    thread.start()
    builder.url = f"http://127.0.0.1:{keeper.server_port}"
    keys = [builder.register().signing_key]
    yield builder, claims
    keeper.shutdown()
    keeper.server_close()


def events(shop: Shop, path: str, **headers: str) -> list[tuple[str, dict[str, object]]]:
    found: list[tuple[str, dict[str, object]]] = []
    kind = ""
    with shop.tenant.client.stream("GET", f"{shop.path}{path}", headers=headers) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                found.append((kind, json.loads(line[6:])))
    return found


def test_a_build_log_is_passed_on_from_the_builder_with_a_ticket(
    tenant: Tenant, log_keeper: tuple[Builder, list[dict[str, str]]]
) -> None:
    builder, claims = log_keeper
    shop = shops.shop(tenant, builder)
    shop.call("POST", "/builds", 201, json={})
    assert events(shop, "/builds/web-1/logs") == [
        ("end", {"status": "Queued", "reason": "Queued", "message": "waits for a builder"})
    ]
    order = builder.lease_of(shop.project)
    builder.complete(order)
    told = events(shop, "/builds/web-1/logs?follow=true")
    assert [kind for kind, _ in told] == ["line", "line", "end"]
    assert told[0][1] == LINES[0]
    assert events(shop, "/builds/web-1/logs", **{"Last-Event-ID": "1-1"}) == told[1:]
    assert events(shop, "/builds/web-1/logs?since=2026-11-24T12:00:01Z") == told[2:]
    assert shop.call("GET", "/builds/web-1/logs", 422, headers={"Last-Event-ID": "one"})
    assert claims[-1] == {"build": order.build, "path": f"/builds/{order.build}/log"}


def test_following_a_queued_build_waits_for_its_builder(
    tenant: Tenant, log_keeper: tuple[Builder, list[dict[str, str]]]
) -> None:
    builder, _ = log_keeper
    shop = shops.shop(tenant, builder)
    shop.call("POST", "/builds", 201, json={})
    told: list[tuple[str, dict[str, object]]] = []
    reader = threading.Thread(target=lambda: told.extend(events(shop, "/builds/web-1/logs?follow=true")))
    reader.start()
    order = builder.lease_of(shop.project)
    builder.complete(order)
    reader.join(10)
    assert told[-1] == ("end", {"status": "Succeeded", "reason": "Succeeded", "message": told[-1][1]["message"]})


def test_a_log_whose_builder_is_down_is_unavailable(shop: Shop) -> None:
    shop.build()
    refused = shop.call("GET", "/builds/web-1/logs")
    assert (refused.status_code, problem(refused)["code"]) == (503, "BuilderUnavailable")


def test_the_stream_of_a_build_ends_with_its_last_state(shop: Shop) -> None:
    shop.call("POST", "/builds", 201, json={})
    told: list[tuple[str, dict[str, object]]] = []
    reader = threading.Thread(target=lambda: told.extend(events(shop, "/builds/web-1/events")))
    reader.start()
    shop.builder.complete(shop.builder.lease_of(shop.project))
    reader.join(10)
    assert told[-1][1]["status"] == "Succeeded"


def test_what_nobody_offers_is_refused_when_a_component_is_made(shop: Shop) -> None:
    body = {"name": "future", "type": "service", "buildConfigs": {"buildpack": "python", "buildPackLangVersion": "9.9"}}
    refused = shop.tenant.client.post(f"{shop.tenant.path}/projects/{shop.project}/components", json=body)
    assert refused.status_code == 422
    assert problem(refused)["violations"][0]["allowed"] == ["3.11", "3.12"]
    offers = shop.tenant.client.get(f"{shop.tenant.path}/buildpacks").json()["items"]
    assert "python" in [offer["name"] for offer in offers]
