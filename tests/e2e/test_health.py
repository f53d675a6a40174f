"""A health check gates a roll-out, takes a sick instance out of routing and lets it in again, and rolls back."""

from __future__ import annotations

from typing import Any

import yaml

from tests.e2e.test_deploy_from_git import build, create, deploy
from tests.given.platform import Platform, eventually
from tests.given.repository import Repository

APP = """\
import http.server
import os

bad = [0]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = 200
        if self.path == "/healthz":
            status = 503 if bad[0] else 200
            bad[0] = max(0, bad[0] - 1)
        elif self.path == "/never":
            status = 404
        elif self.path.startswith("/fail/"):
            bad[0] = int(self.path[6:])
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"hello")
        print("asked for", self.path, flush=True)

    def log_message(self, *arguments):
        pass


http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""
WHERE = ("patient", "--project", "shop", "--env", "Development")
CHECK = ("--path", "/healthz", "--period", "1", "--failure-threshold", "2")


def state(platform: Platform) -> dict[str, Any]:
    shown: dict[str, Any] = platform.json(
        "describe", "environment", "Development", "--component", "patient", "--project", "shop"
    )
    return shown


def condition(platform: Platform, kind: str) -> dict[str, Any]:
    return next(item for item in state(platform)["conditions"] if item["type"] == kind)


def test_a_health_check_decides_what_gets_requests(platform: Platform, repository: Repository) -> None:
    repository.commit({"app.py": APP, "Procfile": "web: python app.py\n"})
    create(platform, "patient", repository)
    build(platform, "patient")
    deploy(platform, "patient", "Development")
    refused = platform.cli("set", "health", *WHERE, "--port", "9", check=False)
    assert refused.returncode == 2
    assert "health.port" in refused.stderr
    platform.cli("set", "health", *WHERE, *CHECK)
    platform.cli("wait", "deployment", *WHERE)
    page = platform.cli("describe", "component", "patient", "--project", "shop").stdout
    assert "GET /healthz every 1 s" in page

    url = platform.url("patient")
    assert platform.fetch(f"{url}fail/6") == (200, "hello")
    eventually(lambda: platform.fetch(url)[0] == 503, what="the sick instance is taken out of routing")
    told = eventually(lambda: (c := condition(platform, "Ready"))["reason"] == "Unhealthy" and c, what="it is told")
    assert "status 503 for /healthz" in told["message"]
    assert told["nextStep"]
    eventually(lambda: platform.fetch(url) == (200, "hello"), what="it passed its check and is let in")
    eventually(lambda: state(platform)["phase"] == "Ready", what="that is told too")

    platform.cli("set", "health", *WHERE, "--path", "/never")
    eventually(
        lambda: "status 404 for /never" in condition(platform, "Healthy")["message"],
        what="the gate tells what it heard",
    )
    assert condition(platform, "Ready")["status"] == "False"
    assert platform.fetch(url) == (200, "hello"), "the version that passed keeps serving"
    platform.cli("rollback", *WHERE)
    assert state(platform)["health"]["path"] == "/healthz"
    assert platform.fetch(url) == (200, "hello")

    documents = list(yaml.safe_load_all(platform.cli("export", "--project", "shop").stdout))
    (written,) = [item for item in documents if item["kind"] == "Configuration" and item["component"] == "patient"]
    assert written["health"]["path"] == "/never", "the newest configuration is what is written"
