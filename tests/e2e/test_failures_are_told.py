"""When it goes wrong the product tells the story, and the old version keeps serving."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.test_deploy_from_git import PYTHON, build, create, deploy
from tests.given.git_server import git_server
from tests.given.platform import Platform, eventually
from tests.given.repository import Repository, python_app

BUILD_FAILURES = {
    "CompileFailed": {"app.py": "def broken(:\n    pass\n"},
    "StartCommandMissing": {"Procfile": "", "app.py": "", "other.py": "print(1)\n"},
    "DependencyNotFound": {"requirements.txt": "this-package-does-not-exist-anywhere-minuet==1.0\n"},
    "HostForbidden": {"requirements.txt": "thing @ https://files.example.com/thing-1.0.tar.gz\n"},
    "InvalidDescriptor": {".choreo/component.yaml": "schemaVersion: 1.2\nendpoint: []\n"},
}

SILENT = """\
import os, socket, time
listener = socket.create_server(("0.0.0.0", int(os.environ["PORT"])))
print("accepting and never answering", flush=True)
held = []
while True:
    held.append(listener.accept())
"""
GLUTTON = """\
with open("/tmp/everything", "wb") as file:
    while True:
        file.write(bytes(4 * 1024 * 1024))
"""

RUN_FAILURES = {
    "ExitedAtOnce": {"app.py": "import sys\nprint('no database', flush=True)\nsys.exit(3)\n"},
    "ListensOnLoopback": {"app.py": python_app()["app.py"].replace('("0.0.0.0"', '("127.0.0.1"')},
    "ListensOnOtherPort": {"app.py": python_app()["app.py"].replace('int(os.environ["PORT"])', "5999")},
    "NotListening": {"app.py": "import time\nprint('thinking', flush=True)\ntime.sleep(3600)\n"},
    "ProbeFailed": {"app.py": SILENT},
    "OutOfMemory": {"app.py": "hold = []\nwhile True:\n    hold.append(bytearray(8 * 1024 * 1024))\n"},
    "DiskFull": {"app.py": GLUTTON},
}
LAST_LINES = {"ExitedAtOnce": "no database", "NotListening": "thinking", "DiskFull": "No space left on device"}


@pytest.fixture(scope="module")
def broken(platform: Platform) -> Iterator[None]:
    """One component for each way to fail: the first version serves, the second is on its way.

    All at once, because some are only given up after the minute that an application has to start in.
    """
    with tempfile.TemporaryDirectory(prefix="minuet-test-") as name:
        Path(name).chmod(0o755)

        def prepare(reason: str) -> None:
            component, repository = reason.lower(), Repository(Path(name) / reason)
            repository.commit(python_app("one"))
            create(platform, component, repository)
            build(platform, component)
            deploy(platform, component, "Development")
            repository.commit(python_app("two") | RUN_FAILURES[reason])
            build(platform, component)
            deploy(platform, component, "Development", "--no-wait")

        with ThreadPoolExecutor(3) as several:
            list(several.map(prepare, RUN_FAILURES))
        yield


@pytest.mark.parametrize("reason", BUILD_FAILURES)
def test_a_build_that_fails_says_why(platform: Platform, repository: Repository, reason: str) -> None:
    name = f"build-{reason.lower()}"
    repository.commit(python_app("one") | BUILD_FAILURES[reason])
    create(platform, name, repository)
    failed = platform.cli("create", "build", name, "--project", "shop", check=False)
    assert failed.returncode == 6
    assert reason in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("reason", RUN_FAILURES)
def test_a_deployment_that_fails_says_why_and_the_old_version_serves(
    platform: Platform, broken: None, reason: str
) -> None:
    name = reason.lower()
    failed = platform.cli("wait", "deployment", name, "--project", "shop", "--env", "Development", check=False)
    assert failed.returncode == 6, failed.stdout + failed.stderr
    assert reason in failed.stdout + failed.stderr
    assert platform.fetch(platform.url(name)) == (200, "one")
    newest = platform.json("list", "deployments", "--component", name, "--project", "shop")["items"][0]["id"]
    told = platform.cli("describe", "deployment", newest, "--component", name, "--project", "shop").stdout
    assert reason in told
    assert LAST_LINES.get(reason, "") in told
    assert "keeps serving" in told


def test_a_version_that_serves_and_then_ends_again_and_again_is_told(
    platform: Platform, repository: Repository
) -> None:
    dying = (
        "import os, threading\nthreading.Timer(1.5, lambda: (print('giving up', flush=True), os._exit(7))).start()\n"
    )
    repository.commit({"app.py": dying + python_app("one")["app.py"], "Procfile": "web: python app.py\n"})
    create(platform, "crashloop", repository)
    build(platform, "crashloop")
    deploy(platform, "crashloop", "Development")

    def told() -> bool:
        state = platform.cli("describe", "environment", "Development", "--component", "crashloop", "--project", "shop")
        return "CrashLoop" in state.stdout and "giving up" in state.stdout

    eventually(told, 60, "the loop is told with its last lines")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///nowhere/at/all.git", "RepositoryNotFound"),
        ("https://no-such-host.invalid/a.git", "RepositoryUnreachable"),
    ],
)
def test_a_repository_that_cannot_be_read_is_named(platform: Platform, url: str, reason: str) -> None:
    name = reason.lower()
    platform.cli(
        *("create", "component", name, "--project", "shop", "--type", "service", "--repo", url),
        *("--build-configs", PYTHON),
    )
    failed = platform.cli("create", "build", name, "--project", "shop", check=False)
    assert failed.returncode == 6
    assert reason in failed.stdout + failed.stderr


def test_a_private_repository_asks_for_a_credential_and_builds_with_it(platform: Platform, open_path: Path) -> None:
    Repository(open_path / "secret.git").commit(python_app("private"))
    with git_server(open_path, password="open-sesame") as elsewhere:
        component = ("create", "component", "private", "--project", "shop", "--type", "service")
        platform.cli(*component, "--repo", f"{elsewhere}/secret.git", "--build-configs", PYTHON)
        refused = platform.cli("create", "build", "private", "--project", "shop", check=False)
        assert refused.returncode == 6
        assert "AuthenticationRequired" in refused.stdout + refused.stderr
        platform.cli("create", "credential", "elsewhere", "--username", "git", "--token-stdin", stdin="open-sesame")
        platform.cli("set", "component", "private", "--project", "shop", "--credential", "elsewhere")
        build(platform, "private")
        deploy(platform, "private", "Development")
    assert platform.fetch(platform.url("private")) == (200, "private")


def test_a_version_that_nobody_offers_is_refused_at_creation(platform: Platform, repository: Repository) -> None:
    refused = platform.cli(
        *("create", "component", "future", "--project", "shop", "--type", "service", "--repo", repository.url),
        *("--build-configs", "buildpack=python,buildPackLangVersion=9.9"),
        check=False,
    )
    assert refused.returncode == 2
    assert "3.11" in refused.stderr, "the versions on offer are named"


def test_an_unknown_build_config_is_refused_with_the_nearest_one(platform: Platform, repository: Repository) -> None:
    refused = platform.cli(
        *("create", "component", "typo", "--project", "shop", "--type", "service", "--repo", repository.url),
        *("--build-configs", "buildpack=python,buildPackLangVerson=3.11"),
        check=False,
    )
    assert refused.returncode == 2
    assert "buildPackLangVersion" in refused.stderr
