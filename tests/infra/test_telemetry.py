"""Logs hold no secrets, whatever way they came in."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from minuet.infra.telemetry import redact_event
from minuet.kernel.secrets import Secret, new_token


@pytest.mark.parametrize(
    "event",
    [
        {"event": "x", "value": Secret("hunter2hunter2")},
        {"event": "x", "password": "hunter2hunter2"},
        {"event": "x", "api_token": "hunter2hunter2"},
        {"event": "x", "headers": {"Authorization": "Bearer hunter2hunter2"}},
        {"event": "x", "deep": [{"client_secret": "hunter2hunter2"}]},
        {"event": "sent Authorization: Bearer hunter2hunter2 along"},
        {"event": "cloning https://me:hunter2hunter2@example.org/x.git"},
    ],
)
def test_a_secret_is_masked(event: dict[str, object]) -> None:
    assert "hunter2" not in str(redact_event(None, "info", event))


@pytest.mark.parametrize("prefix", ["mno", "mnr", "mnp", "mnb", "mna"])
def test_a_token_of_ours_is_recognised_anywhere(prefix: str) -> None:
    token = new_token(prefix).reveal()
    assert token not in str(redact_event(None, "info", {"event": f"got {token}!", "list": [token]}))


def test_a_line_is_json_on_stderr_also_for_foreign_loggers_and_errors() -> None:
    script = """
import logging
from minuet.infra import telemetry
log = telemetry.logger("early")
telemetry.configure("tester")
log.info("hello", token="abc", n=1)
logging.getLogger("foreign").warning("Bearer %s", "abcdefgh")
try:
    1 / 0
except ZeroDivisionError as error:
    log.error("failed", exc_info=error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    first, second, third = (json.loads(line) for line in done.stderr.splitlines())
    assert (first["event"], first["token"], first["n"], first["role"], first["level"]) == (
        "hello",
        "***",
        1,
        "tester",
        "info",
    )
    assert second["event"] == "Bearer ***"
    assert "ZeroDivisionError" in third["exception"]


def test_what_the_agent_imports_loads_no_database() -> None:
    script = (
        "import sys, minuet.infra.settings, minuet.infra.http, minuet.infra.telemetry, minuet.infra.files, minuet.__main__\n"
        "print([m for m in ('sqlalchemy', 'fastapi', 'alembic', 'minuet.infra.database', 'minuet.cli') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
