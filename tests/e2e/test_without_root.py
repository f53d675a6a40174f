"""An ordinary user starts the platform, pushes, builds, mounts a file and deploys again: less isolated, not less able."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import minuet
from tests.given.platform import Platform, eventually
from tests.given.repository import Repository, python_app

NOBODY = "65534"
PYTHON = "buildpack=python,buildPackLangVersion=3.11"
READS_A_FILE = python_app()["app.py"].replace('f"{MESSAGE} ', "f\"{MESSAGE} {open(os.environ['READS']).read()} ")
_ENTER = (
    'mount --bind "$0" "$2" && mount --bind "$1" "$3" && shift 3 && '
    f'exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --inh-caps=-all "$@"'
)
"""The checkout may lie where nobody else may go: it is shown at a place where everybody may."""


class OrdinaryPlatform(Platform):
    """A platform started by a user who is nobody in particular, from the very code under test."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._source, self._prefix = directory / "src", directory / "venv"
        for folder in (self._source, self._prefix, self.data):
            folder.mkdir()
        for folder in (directory, self.data, self.home):
            os.chown(folder, int(NOBODY), int(NOBODY))

    def command(self) -> tuple[str, ...]:
        source = Path(minuet.__file__).resolve().parent.parent
        shown = (str(source), sys.prefix, str(self._source), str(self._prefix))
        python = str(self._prefix / "bin" / Path(sys.executable).name)
        enter = ("unshare", "--mount", "--propagation", "slave", "sh", "-c", _ENTER)
        return (*enter, *shown, python, "-m", "minuet.cli.main")

    def environment(self) -> dict[str, str]:
        own = {"PYTHONPATH": str(self._source), "PYTHONDONTWRITEBYTECODE": "1"}
        return super().environment() | own


@pytest.fixture(scope="module")
def ordinary() -> Iterator[OrdinaryPlatform]:
    if os.geteuid() != 0 or not shutil.which("bwrap"):
        pytest.skip("needs root to become an ordinary user, and bubblewrap")
    with tempfile.TemporaryDirectory(prefix="minuet-test-") as name:
        platform = OrdinaryPlatform(Path(name))
        told = platform.up().stderr
        try:
            assert "host-network" in told, told
            platform.cli("create", "project", "shop")
            yield platform
        finally:
            platform.down()
        assert platform.processes() == {}


@pytest.fixture
def pushed(ordinary: OrdinaryPlatform, repository: Repository) -> Repository:
    """Two components of one repository, which declare the same port, pushed and served."""
    clone_url = ordinary.json("describe", "project", "shop")["cloneUrl"]
    token = re.search(r'token = "([^"]+)"', (ordinary.home / "contexts.toml").read_text())
    assert token
    repository.git("remote", "add", "minuet", clone_url.replace("://", f"://owner:{token[1]}@", 1))
    for name in ("left", "right"):
        repository.commit({f"{name}/{file}": text for file, text in python_app(name).items()})
        ordinary.cli(
            *("create", "component", name, "--project", "shop", "--type", "service", "--branch", "main"),
            *("--directory", name, "--build-configs", PYTHON, "--auto-deploy"),
        )
    told = repository.git("push", "minuet", "main:main").stderr
    assert f"Ready: {ordinary.url('left')}" in told, told
    return repository


def test_a_push_is_served_a_file_is_mounted_and_nothing_collides(
    ordinary: OrdinaryPlatform, pushed: Repository, open_path: Path
) -> None:
    left, right = ordinary.url("left"), ordinary.url("right")
    assert ordinary.fetch(left) == (200, "left")
    assert ordinary.fetch(right) == (200, "right")

    mounted = open_path / "greeting"
    mounted.write_text("from a file")
    pushed.commit({"left/app.py": READS_A_FILE})
    where = ("--project", "shop", "--env", "Development")
    given = (f"--file=/app/conf/greeting={mounted}", "READS=/app/conf/greeting")
    ordinary.cli("set", "config", "left", *given, *where, "--no-deploy")
    told = pushed.git("push", "minuet", "main:main").stderr
    assert "right" not in told, told
    eventually(lambda: ordinary.fetch(left) == (200, "one from a file"), what=told)

    ordinary.cli("scale", "left", "--replicas", "2", *where)
    ordinary.cli("redeploy", "left", *where)
    answers = {ordinary.fetch(left) for _ in range(8)} | {ordinary.fetch(right) for _ in range(2)}
    assert answers == {(200, "one from a file"), (200, "right")}
