"""The builder among others: limits, cancellation, a control plane that is away, and what a build may see."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
import time
import urllib.request
from pathlib import Path

import pytest

import minuet
from minuet.protocol.building import BuildLimits
from tests.given.platform import eventually
from tests.given.repository import python_app
from tests.given.workbench import LIMITS, Workbench, failed

NODE = {"package.json": '{"name": "a", "scripts": {"start": "node a.js", "build": "sh build.sh"}}', "a.js": "1\n"}


def script(text: str) -> dict[str, str | bytes]:
    """A source whose build runs a shell script: the shortest way to misbehave."""
    return {**NODE, "build.sh": text}


def limits(**changes: float) -> BuildLimits:
    return LIMITS.model_copy(update=changes)


def test_what_can_be_built_is_offered_with_versions(bench: Workbench) -> None:
    offers = {offer.name: offer for offer in bench.orders.registrations[0].buildpacks}
    assert {"python", "static"} <= set(offers)
    required = {(offer.name, kind): offer.required for offer in bench.orders.registrations[0].buildpacks
                for kind in offer.component_types}  # fmt: skip
    assert required["python", "web-application"] == ("buildPackLangVersion", "port")
    assert required["python", "service"] == ("buildPackLangVersion",)
    assert "3.11" in offers["python"].versions
    assert all(offer.default_version in offer.versions for offer in offers.values() if offer.versions)


def test_too_much_memory_is_told_by_name(bench: Workbench) -> None:
    hog = script("exec python3 -S -c 'x=[]\nwhile 1: x.append(bytearray(1<<20))'\n")
    failed(bench.build(hog, limits=limits(memory=150 * 2**20)), "BuildOutOfMemory", "150 MiB")


def test_too_long_is_told_by_name(bench: Workbench) -> None:
    failed(bench.build(script("sleep 60\n"), limits=limits(seconds=4.0)), "BuildTimedOut", "4 s")


def test_too_much_disk_is_told_by_name(bench: Workbench) -> None:
    filler = "for i in $(seq 20); do dd if=/dev/zero of=f$i bs=1M count=10 2>/dev/null; sleep 0.1; done; sleep 20\n"
    failed(bench.build(script(filler), limits=limits(disk=30 * 2**20)), "BuildDiskFull", "30 MiB")


def test_a_cancelled_build_ends_at_once_and_leaves_nothing(bench: Workbench) -> None:
    order = bench.order(bench.repository(script("echo begun; sleep 100\n")))
    eventually(lambda: "begun" in _log(bench, order.build), 30, "the build runs")
    began = time.monotonic()
    bench.orders.cancelled.add(order.lease)
    built = bench.result(order, 20)
    assert built.result.reason == "BuildCancelled"
    assert time.monotonic() - began < 10
    workspaces = bench.directory / "workspaces"
    eventually(lambda: not any(workspaces.iterdir()), 10, "the workspace is removed")


def test_a_build_whose_lease_is_lost_ends_and_hands_nothing_in(bench: Workbench) -> None:
    order = bench.order(bench.repository(script("echo begun; sleep 100\n")))
    eventually(lambda: "begun" in _log(bench, order.build), 60, "the build runs")
    bench.orders.lost.add(order.lease)
    ended = bench.directory / "logs" / f"{order.build}.ended"
    eventually(ended.exists, 30, "the build ends")
    eventually(lambda: "build.lost" in bench.own_log(), 10)
    assert order.lease not in bench.orders.results


def _log(bench: Workbench, build: str) -> str:
    status, body = bench.get(f"/builds/{build}/log", bench.ticket(build=build))
    return body.decode() if status == 200 else ""


def test_builds_run_beside_each_other_within_the_bound(bench: Workbench) -> None:
    orders = [bench.order(bench.repository(script("echo begun; sleep 1\n"))) for _ in range(3)]
    seen = 0
    for order in orders:
        eventually(lambda order=order: "begun" in _log(bench, order.build), 60)
        seen = max(seen, sum(bool(_log(bench, o.build)) and o.lease not in bench.orders.results for o in orders))
    assert seen <= 2
    assert all(bench.result(order).result.reason == "Succeeded" for order in orders)


def test_a_result_waits_for_a_control_plane_that_is_away_even_over_a_restart(bench: Workbench) -> None:
    order = bench.order(bench.repository(script("echo begun; sleep 1\n")))
    eventually(lambda: "begun" in _log(bench, order.build), 30)
    bench.orders.away.set()
    try:
        waiting = bench.directory / "results" / f"{order.lease}.json"
        eventually(waiting.exists, 30, "the result waits on the disk")
        bench.stop_builder()
        delivered = len(bench.orders.results)
        assert waiting.exists()
        assert order.lease not in bench.orders.results
    finally:
        bench.orders.away.clear()
        bench.start_builder()
    assert bench.orders.results_at_registration == delivered + 1, "delivered before registering gives the lease back"
    assert bench.result(order, 30).result.reason == "Succeeded"
    eventually(lambda: not waiting.exists(), 10, "a delivered result is removed")


def test_a_build_sees_nothing_of_the_builder(bench: Workbench) -> None:
    spy = (
        "env; cat /proc/1/environ /proc/self/environ | tr '\\0' '\\n'; ls -la / /run /home /root /opt 2>&1;"
        "cat /run/minuet/data/builder/store/signing.key /run/minuet/data/builder/credential; id; ls /proc\n"
    )
    built = bench.build(script(spy), environment={"GREETING": "hello"})
    assert "GREETING=hello" in built.log
    checkout = str(Path(minuet.__file__).parents[2])
    for canary in ("credential-of-the-builder", "PYTHONPATH", "MINUET", "launcher.sock", "UV_", checkout):
        assert canary not in built.log, canary
    assert re.search(r"uid=10001\b", built.log)


def test_an_organizations_own_files_are_no_other_organizations(bench: Workbench) -> None:
    plant = "ls -R /work /layers 2>/dev/null; echo planted > /work/planted; echo planted > /tmp/planted\n"
    assert bench.build(script(plant)).artifact
    assert "planted" not in bench.build(script("ls -R /work /tmp\n"), organization_id="org_2").log
    assert "planted" not in bench.build(script("ls -R /work /tmp\n# again\n")).log


def test_control_characters_and_endless_lines_do_not_pass_the_log(bench: Workbench) -> None:
    noisy = "printf '\\033[31mred\\033[0m \\007bell\\rlast\\n'; head -c 100000 /dev/zero | tr '\\0' x; echo\n"
    built = bench.build(script(noisy))
    assert "last" in built.log
    assert all(character >= " " or character == "\n" for character in built.log)
    assert max(len(record["message"]) for record in built.records) <= 4096


def test_a_log_that_is_full_counts_what_it_drops(bench: Workbench) -> None:
    built = bench.build(script("for i in $(seq 5000); do echo line $i; done\n"), limits=limits(log_bytes=20_000))
    assert re.search(r"\d+ lines were dropped", built.log)
    assert len(bench.log(built.order.build)) < 30_000


def test_a_log_is_followed_while_it_is_written(bench: Workbench) -> None:
    order = bench.order(bench.repository(script("echo first; sleep 1; echo second\n")))
    eventually(lambda: "first" in _log(bench, order.build), 30)
    url = f"http://127.0.0.1:{bench.port}/builds/{order.build}/log?follow=1"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {bench.ticket(build=order.build)}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        messages = [json.loads(line)["message"] for line in answer]
    assert messages.index("first") < messages.index("second")
    assert bench.result(order).result.reason == "Succeeded"


def test_artifacts_and_logs_need_a_ticket_for_just_that(bench: Workbench) -> None:
    one, two = bench.build(python_app("one")), bench.build(python_app("two"))
    digest = one.artifact.digest
    assert bench.get(f"/artifacts/{digest}")[0] == 401
    assert bench.get(f"/artifacts/{digest}", "forged.ticket")[0] == 403
    assert bench.get(f"/artifacts/{digest}", bench.ticket(plane="p", artifact=two.artifact.digest))[0] == 403
    ticket = bench.ticket(plane="p", artifact=digest)
    assert bench.get(f"/artifacts/{digest}", ticket)[0] == 200
    assert bench.get("/artifacts/sha256:abc", ticket)[0] in (403, 422)
    assert bench.get("/artifacts/..%2F..%2Fsigning.key", ticket)[0] in (403, 404, 422)
    assert bench.get(f"/builds/{one.order.build}/log", bench.ticket(build=two.order.build))[0] == 403
    layer = one.artifact.layers[0]
    status, part = bench.get(f"/artifacts/{layer['digest']}", ticket, {"Range": "bytes=0-99"})
    assert (status, len(part)) == (206, 100)


def test_two_builds_of_one_commit_at_once_give_one_artifact(bench: Workbench) -> None:
    source = bench.repository(python_app("together"))
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(bench.build(source).artifact.digest)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(found) == 2
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    "files", [{"README.md": "nothing to build\n"}, {".choreo/component.yaml": "schemaVersion: 1.2\n"}]
)
def test_a_source_that_no_buildpack_knows_says_so(bench: Workbench, files: dict[str, str | bytes]) -> None:
    failed(bench.build(files), "BuildpackNotDetected", "python", "static")


def test_what_the_control_plane_no_longer_has_goes_after_a_day(bench: Workbench) -> None:
    old, kept = bench.build(python_app("goes")), bench.build(python_app("stays"))
    for project in ("goes", "stays"):
        bench.repository({"a": project}).git("push", bench.remote(project), "main")
    repositories = bench.directory / "repositories"
    markers = bench.directory / "store" / "manifests"
    for path in (*repositories.iterdir(), *markers.iterdir()):
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    bench.orders.gone |= {old.order.build, "prj_goes"}
    bench.stop_builder()
    bench.start_builder()
    eventually(lambda: not (repositories / "prj_goes.git").exists(), 30, "the repository is removed")
    assert (repositories / "prj_stays.git").exists()
    digest = old.artifact.digest
    eventually(lambda: bench.get(f"/artifacts/{digest}", bench.ticket(plane="p", artifact=digest))[0] == 404, 30)
    assert kept.read("app.py")


def test_a_workspace_that_a_killed_builder_left_is_removed_at_the_next_start(bench: Workbench) -> None:
    order = bench.order(
        bench.repository(script("mkdir -p $(yes d | head -1100 | tr '\\n' /); echo begun; sleep 100\n"))
    )
    eventually(lambda: "begun" in _log(bench, order.build), 60, "the build runs")
    role = asyncio.run(bench.installation.client("supervisor").roles())
    os.kill(next(item.pid for item in role if item.role == "builder"), signal.SIGKILL)
    workspaces = bench.directory / "workspaces"
    eventually(lambda: not any(workspaces.iterdir()), 60, "the workspace is removed")


def test_a_host_that_a_build_step_reaches_for_is_named(bench: Workbench) -> None:
    reach = "exec python3 -c 'import urllib.request as r; r.urlopen(\"http://fonts.example.com/a.css\")'\n"
    failed(bench.build(script(reach)), "HostForbidden", r"fonts\.example\.com")


def test_a_host_that_is_reached_for_without_the_proxy_is_named(bench: Workbench) -> None:
    reach = 'node -e \'require("net").connect(443, "cdn.example.com")\'\n'
    failed(bench.build(script(reach)), "HostForbidden", r"cdn\.example\.com")


def test_a_refused_host_that_was_not_missed_does_not_hide_the_mistake(bench: Workbench) -> None:
    ask = 'try: r.urlopen("http://telemetry.example.com/")\nexcept OSError: pass\n'
    told = f"python3 -c 'import urllib.request as r\n{ask}'; echo 'a.js:3:1: SyntaxError: no'; exit 1\n"
    failed(bench.build(script(told)), "CompileFailed", r"a\.js, line 3")
