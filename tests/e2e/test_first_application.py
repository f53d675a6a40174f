"""The first application, its screen, and the commands of README and tutorial as a person would paste them after it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minuet.client.api import Api
from minuet.kernel.errors import NotFound
from minuet.server import first_app, greeting, installation
from minuet.server.first_push import Push, Remote
from tests.given.platform import Platform, eventually
from tests.given.repository import Repository, python_app

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "samples" / first_app.SAMPLE

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("bwrap"), reason="needs root and bubblewrap"),
]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    platform = Platform(tmp_path_factory.mktemp("first"))
    platform.up()
    yield platform
    platform.down()
    assert platform.processes() == {}


@pytest.fixture
def chosen(started: Platform, monkeypatch: pytest.MonkeyPatch) -> installation.Installation:
    monkeypatch.setenv("MINUET_CONFIG", started.environment()["MINUET_CONFIG"])
    return installation.load(started.data, {})


def is_there(server: Api, path: str) -> bool:
    try:
        return bool(server.get(path))
    except NotFound:
        return False


def paste(platform: Platform, commands: str) -> subprocess.CompletedProcess[str]:
    """Runs lines in a shell in the checkout, ending at the first that fails."""
    programs = Path(sys.executable).parent
    environment = platform.environment() | {"PATH": f"{programs}:{os.environ['PATH']}"}
    commands = re.sub(r"(?<!/)\.venv/bin/minuet", str(programs / "minuet"), commands)
    return subprocess.run(
        ["/bin/sh", "-ec", commands], cwd=ROOT, env=environment, input="a secret\n", capture_output=True, text=True,
        timeout=170, check=False,
    )  # fmt: skip


def shell_blocks(page: Path) -> str:
    """The commands that a page shows, without those that start the platform or end only by Ctrl-C."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line for block in blocks if "make run" not in block for line in block.splitlines()]
    return "\n".join(lines).replace(" --follow", "")


def test_without_git_it_is_told_what_to_install(
    started: Platform, chosen: installation.Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setenv("PATH", str(tmp_path))
    first_app.FirstApplication(started.data, chosen, said.append, held=False).deploy_and_tell()
    assert said[:2] == [
        "The first application was not deployed: git is not installed",
        "  install the package git",
    ]


def test_an_attempt_that_got_only_as_far_as_the_repository_is_taken_up(
    started: Platform, chosen: installation.Installation, tmp_path: Path
) -> None:
    server = Api(greeting.owner_context(started.data, chosen))
    clone = server.get(server.organization("projects", first_app.PROJECT, "repository"))["cloneUrl"]
    push = Push(tmp_path / "work")
    push.commit(SAMPLE)
    # A repository without the component is what an attempt leaves that ended before it was built.
    component = server.organization("projects", first_app.PROJECT, "components", first_app.COMPONENT)
    server.delete(component)
    eventually(lambda: not is_there(server, component), what="the component is gone")
    assert push.send(Remote(clone, server.context.token), lambda _: None) is True

    said: list[str] = []
    first_app.FirstApplication(started.data, chosen, said.append, held=True).deploy_and_tell()
    assert "Your first application runs:" in said, said
    url = said[said.index("Your first application runs:") + 1].strip()
    assert started.fetch(url) == (200, "Hello from Minuet\n")
    assert f"  http://127.0.0.1:{started.ports['api']}/docs" in said
    commands = [line.strip() for line in said[said.index("Try next:") + 1 :] if line.startswith("  ")]
    assert len(commands) == 3
    done = paste(started, "\n".join(commands).replace(" --follow", ""))
    assert done.returncode == 0, done.stderr
    assert "production" in done.stdout


def test_the_commands_of_the_readme_work_after_it(started: Platform, open_path: Path) -> None:
    repository = Repository(open_path / "repository")
    repository.commit(python_app("readme"))
    commands = shell_blocks(ROOT / "README.md").replace("shop", "stall")
    done = paste(started, commands.replace("https://git.example.com/stall/web.git", repository.url))
    assert done.returncode == 0, done.stderr
    for environment in ("development", "production"):
        url = started.url("web", environment, project="stall")
        assert url in done.stdout
        assert started.fetch(url) == (200, "readme")


def test_the_commands_of_the_tutorial_work_after_it(started: Platform, open_path: Path) -> None:
    repository = Repository(open_path / "repository")
    repository.commit(python_app("tutorial"))
    commands = shell_blocks(ROOT / "docs" / "tutorial.md")
    done = paste(started, commands.replace("https://git.example.com/shop/web.git", repository.url))
    assert done.returncode == 0, done.stderr
    assert started.fetch(started.url("web", "development")) == (200, "tutorial Hello")
    assert started.fetch(started.url("web", "production")) == (200, "tutorial")
