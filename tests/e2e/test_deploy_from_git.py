"""The journey: a repository becomes a service, is promoted, and is brought back."""

from __future__ import annotations

import re

from tests.given.platform import Platform, eventually
from tests.given.repository import Repository, python_app

PYTHON = "buildpack=python,buildPackLangVersion=3.11"


def create(platform: Platform, name: str, repository: Repository, *flags: str) -> None:
    platform.cli(
        *("create", "component", name, "--project", "shop", "--type", "service", "--repo", repository.url),
        *("--branch", "main", "--directory", ".", "--build-configs", PYTHON, *flags),
    )


def build(platform: Platform, name: str) -> str:
    done = platform.cli("create", "build", name, "--project", "shop")
    found = re.search(rf"\b{name}-\d+\b", done.stdout + done.stderr)
    assert found, done.stdout + done.stderr
    return found[0]


def deploy(platform: Platform, name: str, environment: str, *flags: str) -> str:
    done = platform.cli("create", "deployment", name, "--project", "shop", "--env", environment, *flags)
    return done.stdout


def test_a_repository_becomes_a_service_that_is_promoted_and_rolled_back(
    platform: Platform, repository: Repository
) -> None:
    create(platform, "web", repository)
    first = build(platform, "web")
    out = deploy(platform, "web", "Development")
    url = platform.url("web")
    assert url in out
    assert platform.fetch(url) == (200, "one")

    deploy(platform, "web", "Production", "--build-id", first)
    live = platform.url("web", "production")
    assert platform.fetch(live) == (200, "one")

    repository.commit(python_app("two"))
    second = build(platform, "web")
    assert second != first
    deploy(platform, "web", "Development")
    assert platform.fetch(url) == (200, "two")
    assert platform.fetch(live) == (200, "one"), "an environment changed without being deployed to"
    deploy(platform, "web", "Production", "--build-id", second)
    assert platform.fetch(live) == (200, "two")

    platform.cli("rollback", "web", "--project", "shop", "--env", "Production")
    assert platform.fetch(live) == (200, "one")


def test_promotion_runs_the_very_artifact_that_was_proven(platform: Platform, repository: Repository) -> None:
    create(platform, "same", repository)
    made = build(platform, "same")
    deploy(platform, "same", "Development", "--build-id", made)
    deploy(platform, "same", "Production", "--build-id", made)
    builds = platform.json("list", "builds", "--project", "shop", "--component", "same")
    assert [item["id"] for item in builds["items"]] == [made]


def test_production_takes_only_what_development_has_proven(platform: Platform, repository: Repository) -> None:
    create(platform, "eager", repository)
    made = build(platform, "eager")
    refused = platform.cli(
        *("create", "deployment", "eager", "--project", "shop", "--env", "Production", "--build-id", made), check=False
    )
    assert refused.returncode == 5
    assert "Development" in refused.stderr or "development" in refused.stderr


def test_configuration_reaches_the_application_and_secrets_are_never_shown(
    platform: Platform, repository: Repository
) -> None:
    create(platform, "configured", repository)
    build(platform, "configured")
    deploy(platform, "configured", "Development")
    platform.cli("set", "config", "configured", "GREETING=hello", "--project", "shop", "--env", "Development")
    url = platform.url("configured")
    eventually(lambda: platform.fetch(url) == (200, "one hello"), what="the variable reaches the application")
    platform.cli(
        *("set", "config", "configured", "--secret", "KEY=t0p-s3cret", "--project", "shop", "--env", "Development")
    )
    shown = platform.cli("list", "config", "configured", "--project", "shop", "--env", "Development", "-o", "json")
    assert "KEY" in shown.stdout
    assert "t0p-s3cret" not in shown.stdout


def test_logs_scale_suspend_and_resume(platform: Platform, repository: Repository) -> None:
    create(platform, "verbs", repository)
    build(platform, "verbs")
    deploy(platform, "verbs", "Development")
    url = platform.url("verbs")
    platform.fetch(url)
    where = ("verbs", "--project", "shop", "--env", "Development")
    eventually(lambda: "served /" in platform.cli("logs", *where).stdout, what="the application's lines")

    platform.cli("scale", *where, "--replicas", "3")
    state = platform.json("describe", "component", "verbs", "--project", "shop")
    assert state
    platform.cli("suspend", *where)
    eventually(lambda: platform.fetch(url)[0] == 503, what="a suspended component answers 503")
    platform.cli("resume", *where)
    eventually(lambda: platform.fetch(url)[0] == 200, what="a resumed component answers")
    platform.cli("delete", "component", "verbs", "--project", "shop", "--yes")
    eventually(lambda: platform.fetch(url)[0] == 404, what="a deleted component is gone")
