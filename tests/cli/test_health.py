"""Health checks from the command line: what is sent, and what a person is told; against a real server too."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from minuet.cli import health_checks
from tests.cli.test_real_server import make_component, ok
from tests.given.command import Command
from tests.given.recorded import Recorded, document

PATH = "/api/v1/organizations/default/projects/shop/components/web/environments/production/configuration"
WHERE = ("web", "--project", "shop", "--env", "Production")
CHECK: dict[str, Any] = {
    "kind": "http",
    "port": 9000,
    "path": "/healthz",
    "failureThreshold": 1,
    "successThreshold": 2,
    "initialDelay": 5,
    "period": 3,
    "timeout": 1,
}


def test_a_check_is_told_in_one_line() -> None:
    told = (
        "GET /healthz on port 9000 every 3 s, timeout 1 s, first after 5 s, out after 1 failure, in after 2 successes"
    )
    assert health_checks.sentence(CHECK) == told
    tcp = CHECK | {"kind": "tcp", "path": None, "port": None, "initialDelay": 0}
    assert str(health_checks.sentence(tcp)).startswith("TCP connection every 3 s, timeout 1 s, out after")
    assert health_checks.sentence(None) is None


@pytest.mark.parametrize(
    ("given", "check"),
    [
        (("--path", "/healthz"), {"kind": "http", "path": "/healthz"}),
        (("--kind", "tcp", "--port", "9000"), {"kind": "tcp", "port": 9000}),
        (
            (
                *("--path", "/healthz", "--port", "9000", "--failure-threshold", "1", "--success-threshold", "2"),
                *("--initial-delay", "5", "--period", "3", "--timeout", "1"),
            ),
            CHECK,
        ),
    ],
)
def test_only_what_was_given_is_sent(
    server: Recorded, minuet: Command, given: tuple[str, ...], check: dict[str, Any]
) -> None:
    server.on(f"PATCH {PATH}", document({"revision": 2, "entries": [], "deployment": "d-1"}))
    done = minuet("set", "health", *WHERE, *given)
    assert done.returncode == 0, done.stderr
    assert server.asked[-1].body == {"health": check, "apply": True}
    assert "Deploying it: d-1" in done.stderr


def test_taking_it_away_says_so_explicitly(server: Recorded, minuet: Command) -> None:
    server.on(f"PATCH {PATH}", document({"revision": 3, "entries": []}))
    assert minuet("unset", "health", *WHERE, "--no-deploy").returncode == 0
    assert server.asked[-1].body == {"health": None, "apply": False}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--period", "0"), "--period"),
        (("--kind", "exec"), "--kind"),
        (("--port", "65536"), "--port"),
        (("--success-threshold", "x"), "--success-threshold"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_asked(
    server: Recorded, minuet: Command, given: tuple[str, ...], told: str
) -> None:
    done = minuet("set", "health", *WHERE, *given)
    assert done.returncode == 2
    assert told in done.stderr
    assert server.asked == []


def test_a_check_is_set_shown_exported_applied_again_and_taken_away(owner: Command) -> None:
    make_component(owner)
    where = ("web", "--env", "Development")
    missing = owner("get", "health", *where)
    assert missing.returncode == 3
    assert "minuet set health" in missing.stderr
    refused = owner("set", "health", *where, "--path", "healthz")
    assert refused.returncode == 2
    assert "health.path" in refused.stderr
    ok(owner("set", "config", *where, "GREETING=hello"))
    ok(owner("set", "health", *where, "--path", "/healthz", "--period", "5"))
    assert json.loads(ok(owner("get", "health", *where, "-o", "json")))["period"] == 5
    page = ok(owner("list", "config", *where))
    assert "Health check  GET /healthz every 5 s" in page
    assert json.loads(ok(owner("list", "config", *where, "-o", "json")))["health"]["path"] == "/healthz"
    assert ok(owner("list", "config", *where, "-o", "name")) == "GREETING\n"
    wanted = {"kind": "Configuration", "project": "shop", "component": "web", "environment": "development"}
    same = yaml.safe_dump(wanted | {"health": {"path": "/healthz", "period": 5}})
    assert "0 of 1 changed" in owner("apply", "-f", "-", stdin=same).stderr
    less = owner("apply", "-f", "-", "--prune", stdin=yaml.safe_dump(wanted | {"variables": {"GREETING": "hello"}}))
    assert "- health check" in less.stdout
    assert owner("get", "health", *where).returncode == 3
    ok(owner("set", "health", *where, "--kind", "tcp"))
    ok(owner("unset", "health", *where))
    assert owner("get", "health", *where).returncode == 3
