"""Following: phases with their times, the end with its reason, and no waiting beyond the limit."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.given.command import Command
from tests.given.recorded import Recorded, document, event, problem, stream

COMPONENT = "/api/v1/organizations/default/projects/shop/components/web"
ENVIRONMENT = f"{COMPONENT}/environments/development"
ID = "20260319-1.1.1"
STEPS = ("Accepted", "Delivered", "Fetched", "Started", "Healthy", "Routed", "Ready")
MADE = {"id": ID, "release": "20260319-1", "component": "web", "environment": "development", "state": "active"}
WHERE = ("web", "--project", "shop", "--env", "Development")
URL = "http://web--shop--development.localhost:8480/"


def state(reached: int, phase: str = "Progressing", identifier: str = ID, **why: Any) -> bytes:
    conditions = [
        {
            "type": kind,
            "status": "True" if index < reached else "Unknown",
            "reason": kind if index < reached else "Waiting",
            "message": "",
            "since": "2026-03-19T10:00:00Z",
        }
        for index, kind in enumerate(STEPS)
    ]
    if why:
        conditions[-1] |= {"status": "False", **why}
    current = {"id": identifier, "phase": phase, "conditions": conditions, "build": "web-1"}
    current |= {"component": "web", "project": "shop"}
    urls = [{"endpoint": "main", "url": URL}]
    body = {"environment": "development", "current": current, "conditions": conditions, "url": URL, "urls": urls}
    return event("environment", body)


def test_a_deployment_shows_a_line_for_each_phase_and_ends_with_the_url(server: Recorded, minuet: Command) -> None:
    server.on(f"POST {COMPONENT}/deployments", document(MADE, 201))
    server.on(f"GET {ENVIRONMENT}/events", stream(*[state(n) for n in range(7)], state(7, "Ready"), hold=True))
    done = minuet("create", "deployment", *WHERE, "--build-id", "web-1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{URL}\n"
    told = [line for line in done.stderr.splitlines() if line.endswith(" s")]
    assert [line.split()[0] for line in told] == ["Accepted", "Delivered", "Artifact", "Started", "Healthy", "Routed"]
    assert "\r" not in done.stderr
    posted = server.requests(f"POST {COMPONENT}/deployments")[0].body
    assert posted == {"environment": "development", "build": "web-1"}


def test_a_failed_deployment_ends_with_reason_log_next_step_and_6(server: Recorded, minuet: Command) -> None:
    why = {
        "reason": "ListensOnLoopback",
        "message": "it listens on 127.0.0.1:8080",
        "nextStep": "Listen on 0.0.0.0 (or ::).",
        "logTail": ["starting", "listening on 127.0.0.1:8080"],
    }
    server.on(f"POST {COMPONENT}/deployments", document(MADE, 201))
    server.on(f"GET {ENVIRONMENT}/events", stream(state(4), state(4, "Failed", **why), hold=True))
    done = minuet("create", "deployment", *WHERE)
    assert done.returncode == 6
    assert done.stdout == ""
    assert done.stderr.splitlines()[-4:] == [
        "  | starting",
        "  | listening on 127.0.0.1:8080",
        f"error: the deployment {ID} failed: ListensOnLoopback: it listens on 127.0.0.1:8080",
        "  Listen on 0.0.0.0 (or ::).",
    ]


def test_a_deployment_that_takes_too_long_ends_in_time_with_what_it_waits_for(
    server: Recorded, minuet: Command
) -> None:
    server.on(f"POST {COMPONENT}/deployments", document(MADE, 201))
    server.on(f"GET {ENVIRONMENT}/events", stream(state(3), hold=True))
    began = time.monotonic()
    done = minuet("create", "deployment", *WHERE, "--timeout", "1")
    assert time.monotonic() - began < 10
    assert done.returncode == 6
    assert "not ready after 1 s: Started is Unknown, Waiting" in done.stderr


def test_a_newer_deployment_ends_the_wait_for_the_older(server: Recorded, minuet: Command) -> None:
    server.on(f"POST {COMPONENT}/deployments", document(MADE, 201))
    server.on(f"GET {ENVIRONMENT}/events", stream(state(2), state(1, identifier="20260319-2.1.1"), hold=True))
    done = minuet("create", "deployment", *WHERE)
    assert done.returncode == 6
    assert "superseded by 20260319-2.1.1" in done.stderr


def test_a_restart_of_the_server_does_not_end_the_wait(server: Recorded, minuet: Command) -> None:
    server.on(f"POST {COMPONENT}/deployments", document(MADE, 201))
    server.on(
        f"GET {ENVIRONMENT}/events",
        stream(state(2), cut=True),
        problem(503, "Unavailable", "Unavailable", "starting"),
        stream(state(4)),
        stream(state(7, "Ready")),
    )
    done = minuet("create", "deployment", *WHERE)
    assert (done.returncode, done.stdout) == (0, f"{URL}\n")
    assert done.stderr.count("Accepted") == 1


def test_no_wait_prints_the_id_and_looks_at_nothing(server: Recorded, minuet: Command) -> None:
    server.on(f"POST {COMPONENT}/deployments", document(MADE, 201))
    done = minuet("create", "deployment", *WHERE, "--no-wait")
    assert (done.returncode, done.stdout) == (0, f"{ID}\n")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("wanted", "events", "code"),
    [
        ("ready", (state(6), state(7, "Ready")), 0),
        ("condition=Healthy", (state(3), state(5)), 0),
        ("condition=healthy", (state(4, "Failed", reason="Unhealthy", message=""), state(5)), 0),
        ("ready", (state(4, "Failed", reason="ProbeFailed", message="no"),), 6),
        ("condition=Healthy", (state(3),), 6),
        ("ready", (event("environment", {"current": None, "conditions": []}),), 6),
    ],
)
def test_wait_ends_when_it_is_so_and_never_before(
    wanted: str, events: tuple[bytes, ...], code: int, server: Recorded, minuet: Command
) -> None:
    server.on(f"GET {ENVIRONMENT}/events", stream(*events, hold=True))
    done = minuet("wait", "deployment", *WHERE, f"--for={wanted}", "--timeout", "1")
    assert done.returncode == code, done.stderr


def build(status: str, **more: Any) -> dict[str, Any]:
    phases = [
        {"name": "fetch", "state": "Succeeded", "seconds": 0.5, "message": ""},
        {"name": "build", "state": "Failed" if status == "Failed" else "Succeeded", "seconds": 2.0, "message": ""},
    ]
    shown = {"id": "web-1", "status": status, "phases": phases, "conditions": [], "reason": status, "message": ""}
    return shown | {"logTail": []} | more


def log_line(number: int, phase: str, message: str) -> bytes:
    time_ = f"2026-03-19T10:00:0{number}.000Z"
    return event("line", {"time": time_, "stream": "stdout", "phase": phase, "message": message})


def test_a_build_streams_its_log_by_phase_and_ends_with_times_and_the_next_step(
    server: Recorded, minuet: Command
) -> None:
    server.on(f"POST {COMPONENT}/builds", document(build("Queued"), 201))
    lines = (log_line(1, "fetch", "cloning"), log_line(2, "build", "installing"), log_line(3, "build", "done"))
    server.on(f"GET {COMPONENT}/builds/web-1/logs", stream(*lines, event("end", {})))
    server.on(f"GET {COMPONENT}/builds/web-1", document(build("Succeeded")))
    done = minuet("create", "build", "web", "--project", "shop")
    assert (done.returncode, done.stdout) == (0, "web-1\n")
    assert done.stderr.splitlines() == [
        "Building web-1 ...",
        "[fetch]",
        "  cloning",
        "[build]",
        "  installing",
        "  done",
        "  fetch                            0.5 s  Succeeded",
        "  build                            2.0 s  Succeeded",
        "Build web-1 succeeded in 2.5 s.",
        "Next: minuet create deployment web --project shop --env Development --build-id web-1",
    ]


def test_a_failed_build_ends_with_its_reason_and_6(server: Recorded, minuet: Command) -> None:
    failed = build("Failed", reason="CompileFailed", message="app.py, line 1: invalid syntax")
    server.on(f"POST {COMPONENT}/builds", document(build("Queued"), 201))
    server.on(f"GET {COMPONENT}/builds/web-1/logs", stream(log_line(1, "build", "boom"), event("end", {})))
    server.on(f"GET {COMPONENT}/builds/web-1", document(failed))
    done = minuet("create", "build", "web", "--project", "shop")
    assert (done.returncode, done.stdout) == (6, "")
    assert "error: the build web-1 failed: CompileFailed: app.py, line 1: invalid syntax" in done.stderr
    assert "Correct the line named in the log." in done.stderr


def test_a_log_that_cannot_be_read_does_not_end_the_wait_for_the_build(server: Recorded, minuet: Command) -> None:
    server.on(f"POST {COMPONENT}/builds", document(build("Queued"), 201))
    server.on(
        f"GET {COMPONENT}/builds/web-1/logs",
        problem(503, "Unavailable", "BuilderUnavailable", "the builder does not answer"),
    )
    server.on(f"GET {COMPONENT}/builds/web-1", document(build("Building")))
    ended = event("build", build("Succeeded"))
    server.on(f"GET {COMPONENT}/builds/web-1/events", stream(event("build", build("Building")), ended))
    done = minuet("create", "build", "web", "--project", "shop")
    assert (done.returncode, done.stdout) == (0, "web-1\n")
    assert "the builder does not answer" in done.stderr


def test_a_build_is_not_waited_for_beyond_the_limit(server: Recorded, minuet: Command) -> None:
    server.on(f"GET {COMPONENT}/builds/web-1", document(build("Building")))
    server.on(f"GET {COMPONENT}/builds/web-1/events", stream(event("build", build("Building")), hold=True))
    done = minuet("wait", "build", "web-1", "--project", "shop", "--timeout", "1")
    assert done.returncode == 6
    assert "minuet wait build web-1" in done.stderr


def test_a_log_in_json_is_one_object_a_line_and_a_span_becomes_a_moment(server: Recorded, minuet: Command) -> None:
    line = event("line", {"time": "2026-03-19T10:00:01.000Z", "instance": "i", "message": "a\u2028b", "dropped": 3})
    server.on(f"GET {ENVIRONMENT}/logs", stream(line, event("end", {})))
    done = minuet("logs", *WHERE, "--since", "10m", "--tail", "5", "-o", "json")
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert '"a\\u2028b"' in done.stdout
    asked = server.asked[0].params
    assert asked["tail"] == "5"
    assert asked["follow"] == "false"
    assert asked["since"].endswith("Z")
    assert "3 lines were dropped" in minuet("logs", *WHERE).stderr
