"""What was made is changed and deleted from the command line: only what is given, only what was confirmed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.given.command import Command
from tests.given.recorded import Answer, Recorded, document
from tests.given.shops import Shop

ORGANIZATION = "/api/v1/organizations/default"
COMPONENT = f"{ORGANIZATION}/projects/shop/components/web"
SOURCE = ("--repo", "https://git.example.com/shop/web.git")
WHERE = ("--project", "shop")


def ok(done: Any) -> Any:
    assert done.returncode == 0, done.stderr
    return done


def got(owner: Command, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ok(owner.here("get", *words, "-o", "json")).stdout)
    return found


def make_component(owner: Command) -> None:
    ok(owner.here("create", "project", "shop"))
    configs = ("--build-configs", "port=8080,runCommand=python app.py")
    ok(owner.here("create", "component", "web", *WHERE, "--type", "service", *SOURCE, *configs, "--build-env", "A=1"))


def test_a_component_changes_in_what_is_given_and_in_nothing_else(owner: Command) -> None:
    make_component(owner)
    before = got(owner, "component", "web")
    ok(owner.here("create", "credential", "forge", "--token-stdin", stdin="t0ken\n"))
    ok(owner.here("set", "component", "web", "--credential", "forge"))
    changed = got(owner, "component", "web")
    assert changed["repository"] == before["repository"] | {"credential": "forge"}
    told = ok(
        owner.here(
            *("set", "component", "web", "--branch", "next", "--auto-deploy", "--no-auto-build"),
            *("--build-configs", "port=9090,runCommand=", "--build-env", "B=2", "--unset-build-env", "A"),
            *("--display-name", "The web", "--description", "sells", "--no-credential"),
        )
    )
    assert "Next: minuet create build web --project shop" in told.stderr
    changed = got(owner, "component", "web")
    assert changed["repository"] == before["repository"] | {"branch": "next", "credential": None}
    assert (changed["autoDeploy"], changed["autoBuild"]) == (True, False)
    assert changed["buildConfigs"] == {"port": "9090"}
    assert changed["buildEnvironment"] == {"B": "2"}
    assert (changed["displayName"], changed["description"]) == ("The web", "sells")


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        (("component", "web"), "nothing to change", 2),
        (("component", "web", "--credential", "a", "--no-credential"), "at once", 2),
        (("component", "web", "--credential", "nothing"), "is not a credential", 2),
        (("component", "web", "--unset-build-env", "B"), "is not set", 2),
        (("component", "nothing", "--branch", "x"), "nothing", 3),
        (("project", "shop"), "nothing to change", 2),
        (("environment", "development"), "nothing to change", 2),
        (("pipeline", "default", "--environments", "development,,production"), "between two commas", 2),
        (("credential", "forge"), "--token-stdin", 2),
    ],
)
def test_a_change_that_is_none_is_refused(words: tuple[str, ...], told: str, code: int, owner: Command) -> None:
    make_component(owner)
    ok(owner.here("create", "credential", "forge", "--token", stdin="t0ken\n"))
    done = owner.here("set", *words)
    assert (done.returncode, told in done.stderr) == (code, True), done.stderr


def test_a_change_is_based_on_what_was_read(server: Recorded, minuet: Command) -> None:
    found = Answer(200, document({"buildConfigs": {}, "buildEnvironment": {}}).chunks, headers=(("ETag", '"one"'),))
    server.on(f"GET {COMPONENT}", found)
    server.on(f"PATCH {COMPONENT}", document({}))
    ok(minuet.here("set", "component", "web", *WHERE, "--branch", "next"))
    assert server.asked[-1].headers["if-match"] == '"one"'
    assert server.asked[-1].body == {"repository": {"branch": "next"}}


def test_projects_environments_and_pipelines_are_changed(owner: Command) -> None:
    ok(owner.here("create", "project", "shop"))
    ok(owner.here("set", "project", "shop", "--display-name", "The shop"))
    assert got(owner, "project", "shop")["displayName"] == "The shop"
    made = ok(owner.here("create", "environment", "staging"))
    assert "minuet set pipeline default --environments development,production,staging" in made.stderr
    ok(owner.here("set", "environment", "staging", "--display-name", "Rehearsal", "--critical"))
    assert got(owner, "environment", "staging")["critical"] is True
    ok(owner.here("set", "pipeline", "default", "--environments", "Development,Staging,Production"))
    assert got(owner, "pipeline", "default")["environments"] == ["development", "staging", "production"]
    ok(owner.here("set", "pipeline", "default", "--environments", "development,production"))
    ok(owner.here("create", "pipeline", "short", "--environments", "development"))
    ok(owner.here("delete", "pipeline", "short", "--yes"))
    ok(owner.here("delete", "environment", "staging", "--yes"))
    assert "staging" not in ok(owner.here("list", "environments", "-o", "name")).stdout


def test_a_credential_takes_a_new_value_and_nothing_shows_it(server: Recorded, minuet: Command) -> None:
    place = f"{ORGANIZATION}/credentials/forge"
    server.on(f"GET {place}", document({"name": "forge"}))
    server.on(f"PATCH {place}", document({"name": "forge"}))
    (minuet.home / "key").write_text("-----BEGIN PRIVATE KEY-----\n")
    told = [
        ok(minuet.here("set", "credential", "forge", *more, stdin="t0p-s3cret\n"))
        for more in (("--token",), ("--deploy-key", str(minuet.home / "key")), ("--username", "me"))
    ]
    bodies = [asked.body for asked in server.asked if asked.method == "PATCH"]
    assert bodies == [
        {"token": "t0p-s3cret"},
        {"deployKey": "-----BEGIN PRIVATE KEY-----\n"},
        {"username": "me"},
    ]
    assert all("t0p-s3cret" not in done.stdout + done.stderr for done in told)


@pytest.mark.parametrize(
    ("words", "route", "typed", "told"),
    [
        (
            ("deployment", "web", *WHERE, "--env", "Production"),
            f"DELETE {COMPONENT}/environments/production",
            "web",
            ("web (project shop) in production", "Lost: every instance there"),
        ),
        (("component", "web", *WHERE), f"DELETE {COMPONENT}", "web", ("of the project shop", "all secrets")),
        (("project", "shop"), f"DELETE {ORGANIZATION}/projects/shop", "shop", ("project shop", "all its components")),
        (("environment", "QA"), f"DELETE {ORGANIZATION}/environments/qa", "qa", ("environment qa", "secrets")),
        (("pipeline", "p"), f"DELETE {ORGANIZATION}/pipelines/p", "p", ("pipeline p", "promotion")),
        (("credential", "c"), f"DELETE {ORGANIZATION}/credentials/c", "c", ("credential c", "nobody can read back")),
        (("token", "ci"), f"DELETE {ORGANIZATION}/tokens/ci", "ci", ("token ci", "the access of whoever uses it")),
        (("organization", "o"), "DELETE /api/v1/organizations/o", "o", ("organization o", "every token")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_a_deletion_says_where_and_what_is_lost_and_asks(
    words: tuple[str, ...], route: str, typed: str, told: tuple[str, ...], server: Recorded, minuet: Command
) -> None:
    server.on(route, Answer(202))
    done = minuet.on_terminal("delete", *words, answers=((r"to go on", f"{typed}\n"),))
    assert done.returncode == 0, done.shown
    for word in told:
        assert word in done.shown
    assert len(server.requests(route)) == 1


def test_a_deletion_is_waited_for_until_nothing_is_left(owner: Command, shop: Shop) -> None:
    refused = owner.here("wait", "component", "web", "--project", shop.project, "--for", "delete")
    assert (refused.returncode, "is not being deleted" in refused.stderr) == (6, True)
    ok(owner.here("delete", "project", shop.project, "--yes"))
    assert "is gone" in ok(owner.here("wait", "component", "web", "--for", "delete")).stderr
    assert "is gone" in ok(owner.here("wait", "project", shop.project)).stderr


def test_a_deletion_that_takes_too_long_names_what_it_waits_for(server: Recorded, minuet: Command) -> None:
    server.on(f"GET {COMPONENT}", document({"state": "Deleting", "heldBy": ["it runs in production"]}))
    done = minuet.here("wait", "component", "web", *WHERE, "--timeout", "0.1")
    assert done.returncode == 6
    assert "it waits for it runs in production" in done.stderr
