"""A person follows what happens from the command line, also while the server is killed."""

from __future__ import annotations

import os
import signal
import subprocess

from tests.e2e.test_deploy_from_git import build, create, deploy
from tests.given.command import MINUET
from tests.given.platform import Platform, eventually
from tests.given.repository import Repository

WHERE = ("--project", "shop", "--env", "Development")


def test_describe_tells_the_whole_story_and_wait_and_open_the_end_of_it(
    platform: Platform, repository: Repository
) -> None:
    create(platform, "told", repository)
    made = build(platform, "told")
    deploy(platform, "told", "Development")
    page = platform.cli("describe", "component", "told", "--project", "shop").stdout
    for word in (made, platform.url("told"), "Ready", "Routed", "Instance"):
        assert word in page, page
    assert "toolchain" in platform.cli("describe", "build", made, "--project", "shop").stdout.lower()
    assert "told is Ready" in platform.cli("wait", "deployment", "told", *WHERE).stderr
    assert platform.cli("open", "told", *WHERE).stdout.strip() == platform.url("told")
    deployment = platform.json("list", "deployments", "--component", "told", "--project", "shop")["items"][0]["id"]
    story = platform.cli("describe", "deployment", deployment, "--component", "told", "--project", "shop").stdout
    assert "Ready after" in story


def test_what_runs_can_be_exported_and_applied_without_a_change(platform: Platform, repository: Repository) -> None:
    create(platform, "coded", repository)
    build(platform, "coded")
    platform.cli("set", "config", "coded", "GREETING=hello", *WHERE)
    deploy(platform, "coded", "Development")
    exported = platform.cli("export", "--project", "shop").stdout
    assert "kind: Deployment" in exported
    again = platform.cli("apply", "-f", "-", stdin=exported)
    assert again.stderr.splitlines()[-1].startswith("0 of"), again.stdout
    changed = exported.replace("GREETING: hello", "GREETING: goodbye")
    platform.cli("apply", "-f", "-", stdin=changed)
    eventually(lambda: platform.fetch(platform.url("coded")) == (200, "one goodbye"), what="the applied configuration")


def test_following_a_log_survives_the_death_of_the_server(platform: Platform, repository: Repository) -> None:
    create(platform, "followed", repository)
    build(platform, "followed")
    deploy(platform, "followed", "Development")
    with subprocess.Popen(
        [*MINUET, "logs", "followed", *WHERE, "--follow"],
        env={**os.environ, "MINUET_CONFIG": str(platform.home / "contexts.toml")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        platform.fetch(platform.url("followed", path="/first"))
        shown = [_until(following.stdout, "/first")]
        server = next(pid for pid, command in platform.processes().items() if "-m minuet server" in command)
        os.kill(server, signal.SIGKILL)
        platform.fetch(platform.url("followed", path="/meanwhile"))
        shown += [_until(following.stdout, "/meanwhile")]
        platform.fetch(platform.url("followed", path="/last"))
        shown += [_until(following.stdout, "/last")]
        following.send_signal(signal.SIGINT)
        assert following.wait(20) == 130
    lines = "".join(shown).splitlines()
    assert len([line for line in lines if "/first" in line]) == 1
    assert len([line for line in lines if "/meanwhile" in line]) == 1


def _until(stream: object, mark: str) -> str:
    """What was printed up to the first line with the mark; pytest's own limit ends a wait in vain."""
    seen = ""
    for line in stream:  # type: ignore[attr-defined]
        seen += line
        if mark in line:
            return seen
    raise AssertionError(f"the command ended before it showed {mark}; it showed {seen}")
