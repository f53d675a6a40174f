"""`git push minuet main`: built, deployed and told in the push's own output; a failure leaves the old version serving."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.given.platform import Platform, eventually
from tests.given.repository import Repository, python_app

PYTHON = "buildpack=python,buildPackLangVersion=3.11"


@pytest.fixture
def hosted(platform: Platform, repository: Repository) -> Repository:
    """A work tree whose remote `minuet` is the project's hosted repository, with a token in its address."""
    clone_url = platform.json("describe", "project", "shop")["cloneUrl"]
    token = re.search(r'token = "([^"]+)"', (platform.home / "contexts.toml").read_text())
    assert token
    repository.git("remote", "add", "minuet", clone_url.replace("://", f"://owner:{token[1]}@", 1))
    return repository


def push(repository: Repository, branch: str, check: bool = True) -> str:
    done: subprocess.CompletedProcess[str] = repository.git("push", "minuet", f"main:{branch}", check=check)
    return done.stderr


def component(platform: Platform, name: str, branch: str, directory: str = ".") -> None:
    platform.cli(
        *("create", "component", name, "--project", "shop", "--type", "service", "--branch", branch),
        *("--directory", directory, "--build-configs", PYTHON, "--auto-deploy"),
    )


def test_a_push_ends_with_the_address(platform: Platform, hosted: Repository) -> None:
    component(platform, "pushed", "push-one")
    told = push(hosted, "push-one")
    assert "remote: Building pushed-1" in told
    assert f"remote: Ready: {platform.url('pushed')}" in told
    assert platform.fetch(platform.url("pushed")) == (200, "one")


def test_a_push_that_does_not_build_says_where_and_the_old_version_serves(
    platform: Platform, hosted: Repository
) -> None:
    component(platform, "broken", "push-two")
    push(hosted, "push-two")
    hosted.commit({"app.py": "def nonsense(:\n"})
    told = push(hosted, "push-two")
    assert "CompileFailed" in told
    assert "app.py, line 1" in told
    assert "keeps serving" in told
    assert platform.fetch(platform.url("broken")) == (200, "one")


def test_only_components_whose_folder_changed_are_built(platform: Platform, hosted: Repository) -> None:
    hosted.commit({f"{folder}/{name}": text for folder in ("a", "b") for name, text in python_app(folder).items()})
    component(platform, "side-a", "push-three", "a")
    component(platform, "side-b", "push-three", "b")
    first = push(hosted, "push-three")
    assert "Building side-a-1" in first
    assert "Building side-b-1" in first
    hosted.commit({f"a/{name}": text for name, text in python_app("changed").items()})
    second = push(hosted, "push-three")
    assert "Building side-a-2" in second
    assert "side-b" not in second
    eventually(lambda: platform.fetch(platform.url("side-a")) == (200, "changed"))
    assert platform.fetch(platform.url("side-b")) == (200, "b")


def test_a_stranger_may_not_push(platform: Platform, hosted: Repository) -> None:
    address = hosted.git("remote", "get-url", "minuet").stdout.strip()
    hosted.git("remote", "set-url", "minuet", re.sub(r"//owner:[^@]+@", "//owner:wrong@", address))
    told = push(hosted, "main", check=False)
    assert "Authentication failed" in told or "401" in told or "could not read" in told


def test_a_read_only_token_may_fetch_and_not_push(platform: Platform, hosted: Repository) -> None:
    push(hosted, "readable")
    token = platform.cli("create", "token", "reader", "--read-only").stdout.strip()
    address = hosted.git("remote", "get-url", "minuet").stdout.strip()
    hosted.git("remote", "set-url", "minuet", re.sub(r"//owner:[^@]+@", f"//reader:{token}@", address))
    assert "readable" in hosted.git("ls-remote", "minuet").stdout
    assert hosted.git("push", "minuet", "main:other", check=False).returncode != 0
