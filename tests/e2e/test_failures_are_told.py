"""When it goes wrong the product tells the story, and the old version keeps serving."""

from __future__ import annotations

import pytest

from tests.e2e.test_deploy_from_git import build, create, deploy
from tests.given.platform import Platform
from tests.given.repository import Repository, python_app

BUILD_FAILURES = {
    "CompileFailed": {"app.py": "def broken(:\n    pass\n"},
    "StartCommandMissing": {"Procfile": "", "app.py": "", "other.py": "print(1)\n"},
    "DependencyNotFound": {"requirements.txt": "this-package-does-not-exist-anywhere-minuet==1.0\n"},
    "InvalidDescriptor": {".choreo/component.yaml": "schemaVersion: 1.2\nendpoint: []\n"},
}

RUN_FAILURES = {
    "ExitedAtOnce": {"app.py": "import sys\nprint('no database', flush=True)\nsys.exit(3)\n"},
    "ListensOnLoopback": {
        "app.py": python_app()["app.py"].replace('("0.0.0.0"', '("127.0.0.1"'),
    },
    "ListensOnOtherPort": {
        "app.py": python_app()["app.py"].replace('int(os.environ["PORT"])', "5999"),
    },
    "NotListening": {"app.py": "import time\nprint('thinking', flush=True)\ntime.sleep(3600)\n"},
    "OutOfMemory": {"app.py": "hold = []\nwhile True:\n    hold.append(bytearray(8 * 1024 * 1024))\n"},
}


@pytest.mark.parametrize("reason", BUILD_FAILURES)
def test_a_build_that_fails_says_why(platform: Platform, repository: Repository, reason: str) -> None:
    name = reason.lower()
    repository.commit(python_app("one") | BUILD_FAILURES[reason])
    create(platform, name, repository)
    failed = platform.cli("create", "build", name, "--project", "shop", check=False)
    assert failed.returncode == 6
    assert reason in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("reason", RUN_FAILURES)
def test_a_deployment_that_fails_says_why_and_the_old_version_serves(
    platform: Platform, repository: Repository, reason: str
) -> None:
    name = reason.lower()
    create(platform, name, repository)
    build(platform, name)
    deploy(platform, name, "Development")
    repository.commit(python_app("two") | RUN_FAILURES[reason])
    build(platform, name)
    failed = platform.cli(
        *("create", "deployment", name, "--project", "shop", "--env", "Development", "--timeout", "90"), check=False
    )
    assert failed.returncode == 6, failed.stdout + failed.stderr
    assert reason in failed.stdout + failed.stderr
    assert platform.fetch(platform.url(name)) == (200, "one")


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
        *("--build-configs", "buildpack=python,buildPackLangVersion=3.11"),
    )
    failed = platform.cli("create", "build", name, "--project", "shop", check=False)
    assert failed.returncode == 6
    assert reason in failed.stdout + failed.stderr


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
