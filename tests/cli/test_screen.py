"""Text from elsewhere is data: no terminal obeys it, no reader is fooled by it."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from minuet.cli import screen
from tests.given.command import Command
from tests.given.recorded import Recorded, document, event, problem, stream

PROJECTS = "/api/v1/organizations/default/projects"
HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.exe\r\nerror: forged\x08\x7f\u2028\u2066"
ENVIRONMENT = f"{PROJECTS}/shop/components/web/environments/development"


def is_safe(text: str) -> bool:
    """Nothing but printable characters and line ends."""
    return all(
        letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Zl", "Zp", "Cs") for letter in text
    ) and (not set(text) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"))


@given(st.text())
def test_cleaned_text_is_one_safe_line(text: str) -> None:
    cleaned = screen.clean(text)
    assert is_safe(cleaned)
    assert "\n" not in cleaned


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    if text.isprintable() and not set(text) & set("\u200b\u00a0"):
        assert screen.clean(text) == text


VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc\x1b\u202e", max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_documents_are_safe_and_still_the_same_data(value: Any) -> None:
    written: list[str] = []
    screen_block, screen.block = screen.block, written.append
    try:
        screen.document(value, "json")
        screen.document(value, "yaml")
    finally:
        screen.block = screen_block
    assert all(is_safe(text) for text in written)
    assert json.loads(written[0]) == value
    assert yaml.safe_load(written[1]) == value


def hostile_environment() -> dict[str, Any]:
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "ExitedAtOnce",
        "message": HOSTILE,
        "nextStep": HOSTILE,
        "logTail": [HOSTILE],
        "since": "2026-01-01T00:00:05Z",
    }
    current = {
        "id": "20260101-1.1.1",
        "phase": "Failed",
        "release": HOSTILE,
        "build": HOSTILE,
        "createdAt": "2026-01-01T00:00:00Z",
        "conditions": [condition],
    }
    instance = {"id": HOSTILE, "phase": HOSTILE, "ready": False, "restarts": 0, "startedAt": HOSTILE}
    return {
        "environment": HOSTILE,
        "phase": HOSTILE,
        "url": HOSTILE,
        "urls": [{"endpoint": HOSTILE, "url": HOSTILE}] * 2,
        "current": current,
        "serving": {"release": HOSTILE},
        "instances": [instance],
        "conditions": [condition],
        "unknownSince": HOSTILE,
    }


def prepare(server: Recorded) -> None:
    component = {
        "name": HOSTILE,
        "project": "shop",
        "type": HOSTILE,
        "repository": {"url": HOSTILE, "branch": HOSTILE, "directory": HOSTILE},
        "buildConfigs": {HOSTILE: HOSTILE},
        "autoDeploy": True,
        "state": HOSTILE,
        "heldBy": [HOSTILE],
        "createdAt": HOSTILE,
        "environments": [{"environment": "development", "phase": HOSTILE, "url": HOSTILE}],
    }
    build = {
        "id": "web-1",
        "status": "Failed",
        "branch": HOSTILE,
        "commit": HOSTILE,
        "commitMessage": HOSTILE,
        "requestedBy": HOSTILE,
        "reason": "BuildFailed",
        "message": HOSTILE,
        "logTail": [HOSTILE],
        "warnings": [HOSTILE],
        "phases": [{"name": HOSTILE, "state": HOSTILE, "seconds": 1.0, "message": HOSTILE}],
        "endpoints": [{"name": HOSTILE, "type": HOSTILE, "port": 1, "basePath": HOSTILE}],
        "conditions": hostile_environment()["conditions"],
        "createdAt": HOSTILE,
    }
    line = {"time": HOSTILE, "instance": HOSTILE, "phase": HOSTILE, "message": HOSTILE}
    server.on("GET /api/v1/organizations/default/components", document({"items": [component]}))
    server.on(
        f"GET {PROJECTS}/shop",
        document({"name": HOSTILE, "displayName": HOSTILE, "description": HOSTILE, "createdAt": HOSTILE}),
    )
    server.on(f"GET {PROJECTS}/shop/repository", document({"cloneUrl": HOSTILE}))
    server.on(f"GET {PROJECTS}/shop/components", document({"items": [component]}))
    server.on(f"GET {PROJECTS}/shop/components/web", document(component))
    server.on(f"GET {ENVIRONMENT}", document(hostile_environment()))
    server.on(f"GET {ENVIRONMENT}/events", stream(event("environment", hostile_environment())))
    server.on(f"GET {ENVIRONMENT}/logs", stream(event("line", line), event("end", {})))
    server.on(f"GET {PROJECTS}/shop/components/web/builds", document({"items": [build]}))
    server.on(f"POST {PROJECTS}/shop/components/web/builds", document(build, 201))
    server.on(f"GET {PROJECTS}/shop/components/web/builds/web-1", document(build))
    server.on(f"GET {PROJECTS}/shop/components/web/builds/web-1/logs", stream(event("line", line), event("end", {})))
    server.on(
        "POST /api/v1/organizations",
        problem(
            409,
            "Conflict",
            "X",
            HOSTILE,
            hint=HOSTILE,
            violations=[{"field": HOSTILE, "message": HOSTILE, "given": HOSTILE, "allowed": [HOSTILE]}],
        ),
    )


COMMANDS = [
    ("list", "components"),
    ("list", "components", "-o", "name"),
    ("list", "components", "-o", "json"),
    ("list", "components", "-o", "yaml"),
    ("describe", "project", "shop"),
    ("describe", "component", "web", "--project", "shop"),
    ("describe", "environment", "development", "--component", "web", "--project", "shop"),
    ("logs", "web", "--project", "shop"),
    ("logs", "web", "--project", "shop", "-o", "json"),
    ("logs", "web", "--project", "shop", "--type", "build", "--build-id", "web-1"),
    ("list", "builds", "--component", "web", "--project", "shop"),
    ("describe", "build", "web-1", "--project", "shop"),
    ("create", "build", "web", "--project", "shop"),
    ("wait", "deployment", "web", "--project", "shop"),
    ("open", "web", "--project", "shop"),
    ("create", "organization", "stark"),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_no_command_lets_a_hostile_text_through(arguments: tuple[str, ...], server: Recorded, minuet: Command) -> None:
    prepare(server)
    done = minuet.here(*arguments)
    assert done.returncode in (0, 5, 6), done.stderr
    shown = done.stdout + done.stderr
    assert "owned" in shown
    assert is_safe(shown), ascii(shown)
    assert not [line for line in shown.splitlines() if line.startswith("error: forged")]


def test_long_cells_are_cut_and_columns_stay_in_line(capsys: pytest.CaptureFixture[str]) -> None:
    screen.table([("a", "x" * 500), ("bb\tb", None)], ("one", "two"))
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "ONE   TWO"
    assert len(second) < 80
    assert third == "bb b"


def test_what_is_said_is_data_too(capsys: pytest.CaptureFixture[str]) -> None:
    screen.say(f"remote: {HOSTILE}\nsecond line")
    shown = capsys.readouterr().err
    assert is_safe(shown)
    assert "owned" in shown
    assert len(shown.splitlines()) == 1, "one saying is one line"


def test_a_question_with_words_of_a_server_is_safe_and_the_answer_is_the_servers_word(
    server: Recorded, minuet: Command
) -> None:
    strange = "3.11\x1b[31m"
    offer = {"name": "python", "versions": [strange], "componentTypes": ["service"], "required": [HOSTILE]}
    server.on("GET /api/v1/organizations/default/buildpacks", document({"items": [offer]}))
    server.on(f"POST {PROJECTS}/shop/components", document({"name": "web"}, 201))
    typed = minuet.on_terminal(
        *("create", "component", "web", "--project", "shop", "--repo", "https://git.example/x.git"),
        answers=(("Type", "\n"), ("Buildpack", "python\n"), ("Version", "\n"), ("owned", "8080\n")),
    )
    assert typed.returncode == 0, typed.shown
    assert is_safe(typed.shown.replace("\r\n", "\n")), ascii(typed.shown)
    assert server.asked[-1].body["buildConfigs"]["buildPackLangVersion"] == strange
