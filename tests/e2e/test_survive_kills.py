"""kill -9, one process at a time, under a steady load: what a person sees of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_deploy_from_git import build, create, deploy
from tests.given.load import Load
from tests.given.platform import Platform, eventually
from tests.given.repository import Repository, python_app


@pytest.fixture
def served(platform: Platform, open_path: Path) -> Iterator[str]:
    """A component with one instance, deployed; its name."""
    name = f"kill-{time.monotonic_ns() % 10**8}"
    repository = Repository(open_path / "repository")
    repository.commit(python_app("one"))
    create(platform, name, repository)
    build(platform, name)
    deploy(platform, name, "Development")
    yield name
    platform.cli("delete", "component", name, "--project", "shop", "--yes")


def pid_of(platform: Platform, mark: str) -> int:
    """The process of this platform whose command line holds `mark`."""
    found = [pid for pid, command in platform.processes().items() if mark in command]
    assert found, f"no process of {mark}: {platform.processes()}"
    return min(found)


def load_of(platform: Platform, name: str) -> Load:
    return Load(platform.ports["gateway"], platform.url(name).split("/")[2])


@pytest.mark.parametrize("role", ["server", "builder", "agent"])
def test_requests_do_not_notice_that_a_role_was_killed(platform: Platform, served: str, role: str) -> None:
    with load_of(platform, served) as load:
        time.sleep(0.5)
        os.kill(pid_of(platform, f"minuet {role} --settings"), signal.SIGKILL)
        eventually(lambda: platform.cli("status", check=False).returncode == 0, what=f"{role} is back")
        time.sleep(0.5)
    assert load.failures == []
    assert len(load.seconds) > 50


@pytest.mark.parametrize("role", ["server", "builder", "agent"])
def test_a_deployment_ends_well_although_a_role_was_killed_meanwhile(
    platform: Platform, served: str, role: str, open_path: Path
) -> None:
    Repository(open_path / "repository").commit(python_app("two"))
    with load_of(platform, served) as load:
        platform.cli("create", "build", served, "--project", "shop", "--no-wait")
        os.kill(pid_of(platform, f"minuet {role} --settings"), signal.SIGKILL)
        eventually(lambda: platform.cli("status", check=False).returncode == 0, what=f"{role} is back")
        newest = platform.json("list", "builds", "--project", "shop", "--component", served)["items"][0]["id"]
        platform.cli("wait", "build", newest, "--project", "shop")
        deploy(platform, served, "Development", "--build-id", newest)
        eventually(lambda: platform.fetch(platform.url(served)) == (200, "two"))
    assert load.failures == []


def test_the_supervisor_can_be_killed_and_started_again(platform: Platform, served: str) -> None:
    with load_of(platform, served) as load:
        os.kill(int((platform.data / "supervisor.lock").read_text()), signal.SIGKILL)
        time.sleep(0.5)
        assert platform.fetch(platform.url(served)) == (200, "one")
        platform.up()
        eventually(lambda: platform.cli("status", check=False).returncode == 0)
    assert load.failures == []


def test_a_killed_envoy_answers_again_within_a_second(platform: Platform, served: str) -> None:
    envoy = pid_of(platform, "_bin/envoy") if _named(platform, "_bin/envoy") else _envoy(platform)
    os.kill(envoy, signal.SIGKILL)
    began = time.monotonic()
    eventually(lambda: platform.fetch(platform.url(served), timeout=1) == (200, "one"), deadline=5)
    assert time.monotonic() - began < 2.0, "the promise is one second; the machine may be busy"


def _named(platform: Platform, mark: str) -> bool:
    return any(mark in command for command in platform.processes().values())


def _envoy(platform: Platform) -> int:
    shim = pid_of(platform, "minuet gateway --settings")
    children = Path(f"/proc/{shim}/task/{shim}/children").read_text().split()
    assert children
    return int(children[0])


def test_a_killed_application_is_back_at_once(platform: Platform, served: str) -> None:
    state = platform.json("describe", "environment", "Development", "--component", served, "--project", "shop")
    assert state["instances"][0]["restarts"] == 0
    os.kill(_application(platform), signal.SIGKILL)
    eventually(lambda: platform.fetch(platform.url(served), timeout=1) == (200, "one"), deadline=10)

    def restarted() -> bool:
        seen = platform.json("describe", "environment", "Development", "--component", served, "--project", "shop")
        return bool(seen["instances"][0]["restarts"])

    eventually(restarted, what="the restart is told")


def _application(platform: Platform) -> int:
    """The pid, as this machine sees it, of the newest `app.py` in a sandbox of this installation."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
                is_own = (
                    command[:2] == [b"python", b"app.py"] and str(platform.data) in (entry / "mountinfo").read_text()
                )
            except OSError:
                continue
            if is_own:
                found.append(int(entry.name))
    assert found, "no application of this installation"
    return max(found)


def test_everything_returns_after_everything_was_killed(platform: Platform, served: str) -> None:
    for pid in platform.processes():
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: platform.fetch(platform.url(served), timeout=1)[0] in (0, 503), what="it is really gone")
    platform.up()
    eventually(lambda: platform.fetch(platform.url(served)) == (200, "one"), what="it is back from the disk")


def test_everything_returns_after_it_was_stopped_in_order(platform: Platform, served: str) -> None:
    platform.down()
    assert platform.processes() == {}
    platform.up()
    eventually(
        lambda: platform.fetch(platform.url(served)) == (200, "one"), deadline=10, what="it is back from the disk"
    )
