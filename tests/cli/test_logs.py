"""Logs show what was asked for: no flag is passed over in silence."""

from __future__ import annotations

import json

import pytest

from tests.given.command import Command
from tests.given.recorded import Recorded, document, event, stream

COMPONENT = "/api/v1/organizations/default/projects/shop/components/web"
WHERE = ("web", "--project", "shop")


def prepare(server: Recorded) -> None:
    lines = [
        event("line", {"time": f"2026-03-19T10:00:0{number}Z", "phase": "build", "message": f"line {number}"})
        for number in range(5)
    ]
    server.on(f"GET {COMPONENT}/builds", document({"items": [{"id": "web-7"}]}))
    server.on(f"GET {COMPONENT}/builds/web-7/logs", stream(*lines, event("end", {})))


@pytest.mark.parametrize(
    ("flags", "numbers"),
    [
        ((), [0, 1, 2, 3, 4]),
        (("--tail", "2"), [3, 4]),
        (("--tail", "0"), []),
        (("--since", "2026-03-19T10:00:03Z"), [3, 4]),
        (("--since", "2026-03-19T10:00:01Z", "--tail", "1"), [4]),
        (("--build-id", "web-7", "--follow"), [0, 1, 2, 3, 4]),
        (("--deployment-track", "main"), [0, 1, 2, 3, 4]),
    ],
    ids=str,
)
def test_the_log_of_a_build_is_cut_as_asked_for(
    flags: tuple[str, ...], numbers: list[int], server: Recorded, minuet: Command
) -> None:
    prepare(server)
    done = minuet.here("logs", *WHERE, "--type", "build", *flags, "-o", "json")
    assert done.returncode == 0, done.stderr
    shown = [json.loads(line)["message"] for line in done.stdout.splitlines()]
    assert shown == [f"line {number}" for number in numbers]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--type", "build", "--env", "production"), "--env: is only for --type component-application"),
        (("--type", "build", "--instance", "i1"), "--instance: is only for"),
        (("--type", "build", "--tail", "5", "--follow"), "--tail: of a build cannot be followed"),
        (("--build-id", "web-7"), "--build-id: is only for --type build"),
        (("--deployment-track", "canary"), "canary"),
    ],
    ids=str,
)
def test_a_flag_that_says_nothing_about_a_log_is_refused_by_its_name(
    flags: tuple[str, ...], told: str, server: Recorded, minuet: Command
) -> None:
    done = minuet.here("logs", *WHERE, *flags)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr
    assert server.asked == []
