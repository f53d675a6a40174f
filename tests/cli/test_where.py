"""Which project is meant when none is named, and hints that work when they are pasted."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from minuet.client import contexts
from minuet.kernel.conditions import ConditionType, Status
from tests.given import agents
from tests.given.command import Command
from tests.given.servers import Server
from tests.given.shops import Shop

SOURCE = ("--type", "service", "--repo", "https://git.example.com/shop/web.git")


def ok(done: Any) -> Any:
    assert done.returncode == 0, done.stderr
    return done


def signed_in(owner: Command) -> Command:
    """The same person with a context instead of variables of the shell."""
    command = Command(owner.home)
    assert owner.server is not None
    ok(command.here("login", "--server", owner.server, "--with-token", stdin=f"{owner.token}\n"))
    return command


def pasted(done: Any) -> list[str]:
    """The words of the command that stands behind `Next:`."""
    (line,) = re.findall(r"^Next: minuet (.*)$", done.stderr, re.MULTILINE)
    return shlex.split(line)


def test_a_new_project_is_the_one_meant_from_then_on_and_that_is_said(owner: Command) -> None:
    command = signed_in(owner)
    ok(command.here("create", "project", "hello"))
    made = ok(command.here("create", "project", "shop"))
    assert "From now on shop is meant" in made.stderr
    assert pasted(made) == ["create", "component", "web", "--project", "shop"]
    created = ok(command.here("create", "component", "web", *SOURCE))
    assert "in shop" in created.stderr
    assert json.loads(ok(command.here("context", "show", "-o", "json")).stdout)["project"] == "shop"
    ok(command.here("context", "use", "--project", "hello"))
    assert "in hello" in ok(command.here("create", "component", "api", *SOURCE)).stderr
    ok(command.here("delete", "project", "hello", "--yes"))
    assert json.loads(ok(command.here("context", "show", "-o", "json")).stdout)["project"] is None


def test_a_command_that_is_not_of_the_context_leaves_nothing_in_it(owner: Command) -> None:
    command = signed_in(owner)
    elsewhere = Command(owner.home, owner.server, owner.token, {"MINUET_ORGANIZATION": "nowhere"})
    assert elsewhere.here("create", "project", "shop").returncode == 3
    ok(owner.here("create", "project", "stored"))
    assert json.loads(ok(command.here("context", "show", "-o", "json")).stdout)["project"] == "stored"
    (owner.home / "fresh").mkdir()
    unsigned = Command(owner.home / "fresh", owner.server, owner.token, owner.environment)
    assert "From now on" not in ok(unsigned.here("create", "project", "other")).stderr


def test_a_component_is_found_by_its_name_when_one_project_has_it(owner: Command) -> None:
    for project, component in (("hello", "web"), ("shop", "web"), ("shop", "api")):
        owner.here("create", "project", project)
        ok(owner.here("create", "component", component, "--project", project, *SOURCE))
    assert json.loads(ok(owner.here("get", "component", "api", "-o", "json")).stdout)["project"] == "shop"
    unclear = owner.here("get", "component", "web")
    assert unclear.returncode == 2
    assert "--project: hello, shop" in unclear.stderr
    owner.environment["MINUET_PROJECT"] = "hello"
    assert json.loads(ok(owner.here("get", "component", "web", "-o", "json")).stdout)["project"] == "hello"
    assert json.loads(ok(owner.here("get", "component", "api", "-o", "json")).stdout)["project"] == "shop"
    assert owner.here("get", "component", "nothing").returncode == 3


def test_without_a_context_several_projects_are_named(owner: Command) -> None:
    for name in ("one", "two"):
        ok(owner.here("create", "project", name))
    unclear = owner.here("create", "component", "web", *SOURCE)
    assert unclear.returncode == 2
    assert "--project: one, two" in unclear.stderr


def test_each_hint_of_the_journey_works_when_it_is_pasted(owner: Command, shop: Shop, real_server: Server) -> None:
    ok(owner.here("create", "project", "hello"))
    ok(owner.here("create", "component", "web", "--project", "hello", *SOURCE))
    shop.build()
    refused = owner.here("create", "deployment", "web", "--project", shop.project, "--env", "Production")
    (line,) = re.findall(r"`minuet (create deployment [^`]*)`", refused.stderr)
    with agents.agent(real_server) as agent:
        agent.project = shop.project
        deployed = ok(owner.here(*shlex.split(line), "--no-wait"))
        agent.report_ready(agent.until(deployed.stdout.strip()))
        assert "is Ready in development" in ok(owner.here(*pasted(deployed))).stderr
        changed = ok(owner.here("set", "config", "web", "A=1", "--project", shop.project))
        agent.report_ready(agent.until(re.findall(r"Deploying it: (\S+)", changed.stderr)[0]))
        ok(owner.here(*pasted(changed)))
    missing = owner.here("rollback", "web", "--project", shop.project, "--env", "Production")
    (line,) = re.findall(r"`minuet (create deployment [^`]*)`", missing.stderr)
    assert shlex.split(line)[2:] == ["web", "--project", shop.project, "--env", "production"]


def test_hints_name_the_organization_that_was_asked_for(owner: Command) -> None:
    name = owner.environment.pop("MINUET_ORGANIZATION")
    made = ok(owner.here("--organization", name, "create", "project", "shop"))
    assert pasted(made)[:2] == ["--organization", name]


def test_starting_the_platform_again_keeps_the_project_that_was_chosen(tmp_path: Any, monkeypatch: Any) -> None:
    from minuet.server import greeting, roles
    from minuet.server.installation import Installation

    monkeypatch.setenv("MINUET_CONFIG", str(tmp_path / "contexts.toml"))
    said: list[str] = []
    monkeypatch.setattr(roles, "owner_token", lambda _data: "token-1")
    greeting.sign_in(tmp_path, Installation(), said.append)
    assert contexts.mean("shop", contexts.current())
    greeting.sign_in(tmp_path, Installation(), said.append)
    assert contexts.current().project == "shop"
    monkeypatch.setattr(roles, "owner_token", lambda _data: "of-another-installation")
    greeting.sign_in(tmp_path, Installation(), said.append)
    assert contexts.current().project is None


def test_a_next_step_of_the_catalogue_names_what_it_is_about(owner: Command, shop: Shop, real_server: Server) -> None:
    shop.build()
    with agents.agent(real_server) as agent:
        agent.project = shop.project
        shop.deploy_ready(agent)
        shop.call("POST", "/environments/development/suspend", 201, json={})
        agent.receive()
        document = agent.until(shop.environment()["current"]["id"])
        agent.report(agents.observed(document, (ConditionType.READY, Status.FALSE, "Suspended")))
        shop.until("development", lambda shown: shown["phase"] == "Suspended")
        page = ok(owner.here("describe", "component", "web", "--project", shop.project)).stdout
    assert f"`minuet resume web --project {shop.project} --env development`" in page
