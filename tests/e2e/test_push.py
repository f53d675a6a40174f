"""The journey of a push: Git tells the whole story, and what must not be pushed is not."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.given.platform import Platform
from tests.given.repository import Repository, python_app
from tests.given.workbench import sample


def remote(platform: Platform, project: str, secret: str | None = None) -> str:
    return f"http://me:{secret or platform.token}@127.0.0.1:{platform.ports['builder']}/git/default/{project}.git"


@pytest.fixture(scope="module")
def pushed(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository that was pushed once, with a component that builds and deploys from it."""
    platform.cli("create", "project", "pushed")
    flags = ("--project", "pushed", "--type", "service", "--auto-deploy")
    configs = "buildpack=python,buildPackLangVersion=3.11"
    platform.cli("create", "component", "web", *flags, "--build-configs", configs)
    made = Repository(tmp_path_factory.mktemp("pushed") / "work")
    made.commit(python_app("one"))
    made.git("remote", "add", "origin", remote(platform, "pushed"))
    return made


def push(repository: Repository, *arguments: str) -> subprocess.CompletedProcess[str]:
    return repository.git("push", "origin", *arguments, check=False)


def test_a_push_ends_with_the_address_that_serves_it(platform: Platform, pushed: Repository) -> None:
    done = push(pushed, "main")
    assert done.returncode == 0, done.stderr
    url = platform.url("web", project="pushed")
    assert f"remote: Ready: {url}" in done.stderr
    assert "remote:   plan: python 3.11" in done.stderr
    assert platform.fetch(url) == (200, "one")


def test_a_push_that_does_not_build_says_where_and_the_old_version_serves(
    platform: Platform, pushed: Repository
) -> None:
    pushed.commit({"app.py": "def broken(:\n"})
    done = push(pushed, "main")
    assert done.returncode == 0, "the push itself is kept"
    assert "CompileFailed" in done.stderr
    assert "app.py, line 1" in done.stderr
    assert "keeps serving" in done.stderr
    assert platform.fetch(platform.url("web", project="pushed")) == (200, "one")


def test_a_push_that_does_not_start_says_why_and_the_old_version_serves(platform: Platform, pushed: Repository) -> None:
    pushed.commit({"app.py": "import sys\nprint('no database')\nsys.exit(3)\n"})
    done = push(pushed, "main")
    assert "Not deployed: ExitedAtOnce" in done.stderr, done.stderr
    assert platform.fetch(platform.url("web", project="pushed")) == (200, "one")


def test_history_may_be_rewritten_and_serves_again(platform: Platform, pushed: Repository) -> None:
    pushed.git("reset", "-q", "--hard", "HEAD~2")
    pushed.commit(python_app("two"))
    done = push(pushed, "+main")
    assert "Ready:" in done.stderr, done.stderr
    assert platform.fetch(platform.url("web", project="pushed")) == (200, "two")


def test_tags_and_other_branches_are_kept_and_build_nothing(platform: Platform, pushed: Repository) -> None:
    pushed.git("tag", "v1")
    assert push(pushed, "v1").returncode == 0
    done = push(pushed, "main:topic")
    assert done.returncode == 0
    assert "nothing to build" in done.stderr
    assert push(pushed, ":topic").returncode == 0
    assert "refs/tags/v1" in pushed.git("ls-remote", "origin").stdout


def test_a_token_that_may_read_cannot_push_whatever_it_claims(
    platform: Platform, pushed: Repository, tmp_path: Path
) -> None:
    reader = platform.call("tokens", {"name": "push-reader", "readOnly": True})["token"]
    place = remote(platform, "pushed", reader)
    pushed.git("clone", "-q", place, str(tmp_path / "copy"))
    assert (tmp_path / "copy/app.py").exists()
    done = pushed.git("push", place, "main:owned", check=False)
    assert done.returncode != 0
    assert "403" in done.stderr
    before = pushed.git("ls-remote", "origin").stdout
    head = before.split()[0]
    line = f"{'0' * 40} {head} refs/heads/owned\0 report-status"
    body = f"{len(line) + 4:04x}{line}0000".encode() + empty_pack()
    url = (
        f"http://127.0.0.1:{platform.ports['builder']}/git/default/pushed.git/git-receive-pack?service=git-upload-pack"
    )
    request = urllib.request.Request(url, body, {"Authorization": f"Bearer {reader}",
                                                 "Content-Type": "application/x-git-receive-pack-request"})  # fmt: skip
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 403
    assert pushed.git("ls-remote", "origin").stdout == before


def empty_pack() -> bytes:
    import hashlib

    head = b"PACK" + (2).to_bytes(4, "big") + (0).to_bytes(4, "big")
    return head + hashlib.sha1(head).digest()


@pytest.mark.parametrize("secret", ["not-a-token", ""])
def test_a_stranger_is_not_let_in(platform: Platform, pushed: Repository, secret: str) -> None:
    done = pushed.git("ls-remote", remote(platform, "pushed", secret or "%20"), check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_a_project_that_does_not_exist_is_told(platform: Platform, pushed: Repository) -> None:
    done = pushed.git("push", remote(platform, "no-such-project"), "main", check=False)
    assert done.returncode != 0
    assert "not found" in done.stderr or "404" in done.stderr


@pytest.mark.parametrize(
    ("name", "answer"), [("nodejs-hello", "Hello from Minuet\n"), ("go-hello", "Hello from Minuet\n")]
)
def test_the_other_samples_are_pushed_and_serve(platform: Platform, tmp_path: Path, name: str, answer: str) -> None:
    kind = {"nodejs-hello": "nodejs", "go-hello": "go"}[name]
    offers = {item["name"]: item for item in platform.json("list", "buildpacks")["items"]}
    if kind not in offers:
        pytest.skip(f"this machine has nothing for {kind}")
    version = offers[kind]["defaultVersion"]
    platform.cli("create", "project", name)
    configs = f"buildpack={kind},buildPackLangVersion={version}"
    flags = ("--project", name, "--type", "service", "--auto-deploy")
    platform.cli("create", "component", "hello", *flags, "--build-configs", configs)
    made = Repository(tmp_path / "work")
    made.commit(sample(name))
    done = made.git("push", remote(platform, name), "main", check=False)
    assert "Ready:" in done.stderr, done.stderr
    assert platform.fetch(platform.url("hello", project=name)) == (200, answer)
