"""The command line and the server understand each other: real processes, real HTTP, no builder and no agent."""

from __future__ import annotations

import json
from typing import Any

import yaml

from tests.given.command import Command
from tests.given.servers import Server

REPOSITORY = ("--repo", "https://git.example.com/shop/web.git")


def ok(done: Any) -> str:
    assert done.returncode == 0, done.stderr
    text: str = done.stdout
    return text


def make_component(owner: Command, name: str = "web") -> None:
    ok(owner.here("create", "project", "shop"))
    ok(owner.here("create", "component", name, "--type", "service", *REPOSITORY))


def test_what_is_created_is_listed_described_and_deleted(owner: Command) -> None:
    make_component(owner)
    assert ok(owner.here("list", "projects", "-o", "name")) == "shop\n"
    assert ok(owner.here("list", "components", "-o", "name")) == "web\n"
    assert json.loads(ok(owner.here("get", "component", "web", "-o", "json")))["type"] == "service"
    assert yaml.safe_load(ok(owner.here("get", "component", "web", "-o", "yaml")))["name"] == "web"
    page = ok(owner.here("describe", "component", "web"))
    assert "https://git.example.com/shop/web.git" in page
    ok(owner.here("delete", "component", "web", "--yes"))
    ok(owner.here("delete", "project", "shop", "--yes"))


def test_refusals_have_their_exit_codes(owner: Command) -> None:
    make_component(owner)
    assert owner.here("create", "project", "shop").returncode == 5
    assert owner.here("create", "project", "Not A Name").returncode == 2
    assert owner.here("get", "project", "nowhere").returncode == 3
    assert owner.here("create", "deployment", "web").returncode == 6
    assert owner.here("logs", "web").returncode == 3
    assert owner.here("status").returncode == 6
    owner.token = "minuet_wrong"
    assert owner.here("list", "projects").returncode == 4


def test_a_token_that_may_only_read_is_refused_to_write_and_a_revoked_one_everything(owner: Command) -> None:
    token = ok(owner.here("create", "token", "ci", "--read-only")).strip()
    reader = Command(owner.home, owner.server, token, owner.environment)
    ok(reader.here("list", "projects"))
    assert reader.here("create", "project", "shop").returncode == 4
    assert token not in ok(owner.here("list", "tokens", "-o", "json"))
    identifier = next(
        item["id"]
        for item in json.loads(ok(owner.here("list", "tokens", "-o", "json")))["items"]
        if item["name"] == "ci"
    )
    ok(owner.here("delete", "token", identifier, "--yes"))
    assert reader.here("list", "projects").returncode == 4


def test_signing_in_keeps_a_context_and_signing_out_forgets_it(owner: Command, real_server: Server) -> None:
    stranger = Command(owner.home)
    assert owner.server is not None
    wrong = stranger.here("login", "--server", owner.server, "--with-token", stdin="minuet_wrong\n")
    assert wrong.returncode == 4
    assert not (owner.home / "contexts.toml").exists()
    ok(stranger.here("login", "--server", owner.server, "--with-token", "--name", "work", stdin=f"{owner.token}\n"))
    organization = owner.environment["MINUET_ORGANIZATION"]
    shown = json.loads(ok(stranger.here("context", "show", "-o", "json")))
    assert (shown["server"], shown["organization"]) == (owner.server, organization)
    assert owner.token not in ok(stranger.here("context", "list", "-o", "json"))
    ok(stranger.here("list", "projects"))
    ok(stranger.here("logout"))
    assert owner.token not in (owner.home / "contexts.toml").read_text()
    assert stranger.here("list", "projects").returncode == 4


def test_configuration_is_set_listed_and_unset_and_secrets_are_not_shown(owner: Command) -> None:
    make_component(owner)
    ok(owner.here("set", "config", "web", "A=1", "--secret", "KEY", "--env", "Production", stdin="t0p-s3cret\n"))
    for form in ("table", "json", "yaml", "name"):
        shown = ok(owner.here("list", "config", "web", "--env", "production", "-o", form))
        assert "KEY" in shown
        assert "t0p-s3cret" not in shown
    ok(owner.here("unset", "config", "web", "KEY", "--env", "Production"))
    assert ok(owner.here("list", "config", "web", "--env", "production", "-o", "name")) == "A\n"
    assert ok(owner.here("list", "config", "web", "--env", "development", "-o", "name")) == ""


def test_a_build_without_a_builder_waits_in_the_queue_until_it_is_cancelled(owner: Command) -> None:
    make_component(owner)
    waited = owner.here("create", "build", "web", "--timeout", "1")
    assert waited.returncode == 6
    assert ok(owner.here("list", "builds", "--component", "web", "-o", "name")) == "web-1\n"
    ok(owner.here("cancel", "build", "web-1"))
    cancelled = owner.here("wait", "build", "web-1")
    assert cancelled.returncode == 6
    assert "BuildCancelled" in cancelled.stderr


MANIFEST = """\
kind: Project
name: shop
description: sells things
---
kind: Component
project: shop
name: web
type: service
repository: {url: https://git.example.com/shop/web.git, branch: main}
---
kind: Configuration
project: shop
component: web
environment: Development
variables: {GREETING: hello}
files: {/app/config.js: "window.x = 1\\n"}
secrets:
  KEY: {fromEnvironment: SHOP_KEY}
"""


def test_applying_twice_changes_once_and_a_dry_run_never(owner: Command) -> None:
    (owner.home / "shop.yaml").write_text(MANIFEST)
    owner.environment["SHOP_KEY"] = "t0p-s3cret"
    tried = owner.here("apply", "-f", "shop.yaml", "--dry-run")
    assert (tried.returncode, "3 of 3 would change." in tried.stderr) == (0, True), tried.stderr
    assert ok(owner.here("list", "projects", "-o", "name")) == ""
    first = owner.here("apply", "-f", "shop.yaml")
    assert (first.returncode, "3 of 3 changed." in first.stderr) == (0, True), first.stderr
    assert "t0p-s3cret" not in first.stdout + first.stderr
    del owner.environment["SHOP_KEY"]
    second = owner.here("apply", "-f", "shop.yaml")
    assert (second.returncode, "0 of 3 changed." in second.stderr) == (0, True), second.stdout + second.stderr
    assert all(line.startswith("= ") for line in second.stdout.splitlines())


def test_what_is_exported_can_be_applied_and_changes_nothing(owner: Command) -> None:
    (owner.home / "shop.yaml").write_text(MANIFEST)
    owner.environment["SHOP_KEY"] = "t0p-s3cret"
    ok(owner.here("apply", "-f", "shop.yaml"))
    exported = ok(owner.here("export"))
    again = owner.here("apply", "-f", "-", stdin=exported)
    assert (again.returncode, again.stderr.splitlines()[-1].startswith("0 of")) == (0, True), again.stdout
    changed = exported.replace("sells things", "sells more").replace("branch: main", "branch: next")
    difference = owner.here("apply", "-f", "-", stdin=changed)
    assert "2 of" in difference.stderr
    assert "~ description: sells things -> sells more" in difference.stdout
    assert json.loads(ok(owner.here("get", "component", "web", "-o", "json")))["repository"]["branch"] == "next"


def test_what_a_file_leaves_out_stays_until_pruned(owner: Command) -> None:
    (owner.home / "shop.yaml").write_text(MANIFEST)
    owner.environment["SHOP_KEY"] = "t0p-s3cret"
    ok(owner.here("apply", "-f", "shop.yaml"))
    ok(owner.here("set", "config", "web", "EXTRA=1"))
    kept = owner.here("apply", "-f", "shop.yaml")
    assert "! EXTRA" in kept.stdout
    assert "0 of 3" in kept.stderr
    pruned = owner.here("apply", "-f", "shop.yaml", "--prune")
    assert "- EXTRA" in pruned.stdout
    assert "EXTRA" not in ok(owner.here("list", "config", "web", "-o", "name"))
