"""kill -9, one process at a time, idle and while a deployment runs, under a load that never retries."""

from __future__ import annotations

import tempfile
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.given import victims
from tests.given.platform import Platform, eventually
from tests.given.served import CONTROL, Served, is_whole, kill_and_bring_back

NAME = "survivor"
WHERE = ("--project", "shop", "--env", "Development")


@pytest.fixture(scope="module")
def served(platform: Platform) -> Iterator[Served]:
    with tempfile.TemporaryDirectory(prefix="minuet-test-") as name:
        Path(name).chmod(0o755)
        yield Served.make(platform, NAME, Path(name) / "repository")


@pytest.fixture
def two_replicas(served: Served) -> Iterator[Served]:
    served.scale(2)
    yield served
    served.scale(1)


@pytest.mark.parametrize("victim", CONTROL)
def test_no_request_notices_that_a_part_of_the_platform_was_killed(
    platform: Platform, served: Served, victim: str
) -> None:
    with served.load() as load:
        eventually(lambda: len(load.answers) > 20)
        kill_and_bring_back(platform, victim)
        eventually(lambda: is_whole(platform), what=f"{victim} is back")
        seen = len(load.answers)
        eventually(lambda: len(load.answers) > seen + 20)
    assert load.failures == []


@pytest.mark.parametrize("victim", CONTROL)
def test_a_deployment_ends_well_although_a_part_was_killed_meanwhile(
    platform: Platform, served: Served, victim: str
) -> None:
    with served.load() as load:
        served.deploy_next(lambda: kill_and_bring_back(platform, victim))
        eventually(lambda: is_whole(platform), what=f"{victim} is back")
    assert load.failures == []


def test_a_killed_envoy_answers_again_and_the_deployment_it_interrupted_ends_well(
    platform: Platform, served: Served
) -> None:
    victims.kill(victims.envoy(platform))
    eventually(served.serves, deadline=10)
    with served.load() as load:
        served.deploy_next(lambda: victims.kill(victims.envoy(platform)))
        failed = len(load.failures)
        seen = len(load.answers)
        eventually(lambda: len(load.answers) > seen + 20)
    assert len(load.failures) == failed, "it goes on failing after Envoy came back"


@pytest.mark.parametrize("victim", [victims.application, victims.shim])
def test_of_two_replicas_only_requests_in_flight_on_the_killed_one_fail(
    platform: Platform, two_replicas: Served, victim: Callable[[Platform, str], int]
) -> None:
    pid = victim(platform, NAME)
    with two_replicas.load() as load:
        eventually(lambda: len(load.answers) > 20)
        killed = time.monotonic()
        victims.kill(pid)
        eventually(lambda: time.monotonic() > killed + 1 and two_replicas.ready() == 2, what="both are ready again")
    assert [failure for failure in load.failures if not failure.was_in_flight_at(killed)] == []
    assert len(load.failures) <= load.connections


@pytest.mark.parametrize("victim", [victims.application, victims.shim])
def test_a_single_killed_instance_is_back_and_its_restart_is_told(
    platform: Platform, served: Served, victim: Callable[[Platform, str], int]
) -> None:
    before = victims.instances(platform, NAME)[0]["application"]
    victims.kill(victim(platform, NAME))
    eventually(served.serves, deadline=15)

    def is_another() -> bool:
        running = victims.instances(platform, NAME)
        return bool(running) and running[0]["application"] not in (None, before)

    eventually(is_another, what="another process runs and is told of")


@pytest.mark.parametrize("victim", [victims.application, victims.shim])
def test_a_deployment_ends_well_although_the_old_instance_was_killed_meanwhile(
    platform: Platform, served: Served, victim: Callable[[Platform, str], int]
) -> None:
    pid = victim(platform, NAME)
    served.deploy_next(lambda: victims.kill(pid))


def test_nothing_that_was_acknowledged_is_lost_with_a_killed_server(platform: Platform) -> None:
    acknowledged: list[str] = []
    over = threading.Event()

    def create_projects() -> None:
        for number in range(10_000):
            if over.is_set():
                return
            try:
                acknowledged.append(platform.call("projects", {"name": f"durable-{number}"}, timeout=5)["name"])
            except (urllib.error.URLError, OSError):
                return

    writer = threading.Thread(target=create_projects)
    writer.start()
    eventually(lambda: len(acknowledged) > 10)
    victims.kill(victims.role(platform, "server"))
    over.set()
    writer.join()
    eventually(lambda: is_whole(platform), what="the server is back")
    there = {item["name"] for item in platform.json("list", "projects")["items"]}
    assert set(acknowledged) <= there


def test_everything_returns_after_everything_was_killed(platform: Platform, served: Served) -> None:
    platform.cli("set", "config", NAME, "GREETING=kept", *WHERE)
    eventually(lambda: served.fetch() == (200, f"{served.now} kept"))
    before = platform.json("list", "builds", "--project", "shop", "--component", NAME)
    for pid in platform.processes():
        victims.kill(pid)
    eventually(lambda: served.fetch()[0] in (0, 503), what="it is really gone")
    platform.up()
    eventually(lambda: served.fetch() == (200, f"{served.now} kept"), what="it is back from the disk")
    assert platform.json("list", "builds", "--project", "shop", "--component", NAME) == before
    platform.cli("unset", "config", NAME, "GREETING", *WHERE)
    eventually(served.serves, what="it can be changed as before")


def test_everything_returns_after_it_was_stopped_in_order(platform: Platform, served: Served) -> None:
    platform.down()
    assert platform.processes() == {}
    platform.up()
    eventually(served.serves, what="it is back from the disk")
