"""The loop from end to end, over instances and routes in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minuet.agent.drivers.memory import MemoryDriver
from minuet.agent.drivers.port import InstanceSpec, Layers
from minuet.kernel.conditions import ConditionType
from minuet.kernel.retry import GiveUp, Retry
from minuet.protocol.desired import Artifact, Route, Tombstone, Workload
from tests.given.documents import workload
from tests.given.plane import Plane, until

KEY = "cmp_1/env_1"
HOST = "web--shop--development.localhost"


class Driver(MemoryDriver):
    """Lets a test make one operation slow or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[tuple[str, int]] = []
        self.stop_gate: asyncio.Event | None = None
        self.fetch_gate: asyncio.Event | None = None
        self.broken: dict[str, Exception] = {}

    async def ensure_artifact(self, artifact: Artifact) -> Layers:
        if self.fetch_gate is not None:
            await self.fetch_gate.wait()
        return await super().ensure_artifact(artifact)

    async def start(self, spec: InstanceSpec) -> None:
        self.started.append((spec.workload.key, spec.workload.generation))
        if error := self.broken.get(spec.workload.command):
            raise error
        await super().start(spec)

    async def stop(self, instance_id: str, grace: float) -> None:
        if self.stop_gate is not None:
            await self.stop_gate.wait()
        await super().stop(instance_id, grace)

    async def forget(self, workload_key: str) -> None:
        if error := self.broken.get("forget"):
            raise error

    def of(self, key: str) -> list[str]:
        return [state.id for state in self._instances.values() if state.workload_key == key]

    def addresses(self, template: str) -> set[str]:
        return {state.address or "" for state in self._instances.values() if state.template == template}


def version(generation: int, command: str, **changes: Any) -> Workload:
    fields = {"generation": generation, "command": command, "deployment": f"d{generation}", "release": command}
    return workload(**(fields | changes))


def other(number: int, command: str = "x") -> Workload:
    route = Route(endpoint="web", host=f"other{number}.localhost", base_path="/", port=8080)
    return version(1, command, key=f"other_{number}/env_1", routes=(route,))


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    found = Plane(tmp_path, Driver())
    yield found
    found.inventory.close()


@pytest.fixture
def driver(plane: Plane) -> Driver:
    assert isinstance(plane.driver, Driver)
    return plane.driver


async def test_a_new_version_takes_over_and_the_old_one_ends(plane: Plane, driver: Driver) -> None:
    old, new = version(1, "a", replicas=2), version(2, "b", replicas=2)
    async with plane.agent():
        plane.declare(old)
        await until(lambda: plane.ready(1))
        assert plane.gateway.addresses(HOST) == driver.addresses(old.template)
        plane.declare(new)
        await until(lambda: plane.ready(2) and not driver.addresses(old.template))
    assert plane.gateway.addresses(HOST) == driver.addresses(new.template)
    assert len(driver.addresses(new.template)) == 2


async def test_every_table_routes_somewhere_once_something_served(plane: Plane, driver: Driver) -> None:
    async with plane.agent():
        for generation, command in enumerate("abcab", start=1):
            plane.declare(version(generation, command))
            await until(lambda generation=generation: plane.ready(generation))
    served = [any(backend.endpoints for backend in table.backends) for table in plane.gateway.tables]
    assert all(served[served.index(True) :])


@pytest.mark.parametrize(("command", "reason"), [("exit", "ExitedAtOnce"), ("refuse", "StartFailed")])
async def test_a_version_that_fails_leaves_the_old_one_serving(
    plane: Plane, driver: Driver, command: str, reason: str
) -> None:
    old = version(1, "a")
    async with plane.agent():
        plane.declare(old)
        await until(lambda: plane.ready(1))
        plane.declare(version(2, command))
        await until(lambda: plane.failed(2) and len(driver.of(KEY)) == 1)
        await until(lambda: (told := plane.condition(ConditionType.READY)) is not None and told.reason == reason)
        assert plane.told[KEY].serving_generation == 1
        assert plane.gateway.addresses(HOST) == driver.addresses(old.template)
        assert driver.started.count((KEY, 2)) == 1


async def test_a_failure_follows_a_failure(plane: Plane, driver: Driver) -> None:
    async with plane.agent():
        plane.declare(version(1, "a"))
        await until(lambda: plane.ready(1))
        plane.declare(version(2, "exit"))
        await until(lambda: plane.failed(2))
        plane.declare(version(3, "refuse"))
        await until(lambda: plane.failed(3))
        tried = driver.started.count((KEY, 3))
        plane.declare(other(1))
        await until(lambda: plane.ready(1, "other_1/env_1"))
    assert driver.started.count((KEY, 3)) == tried == 1


async def test_a_serving_version_that_cannot_start_again_does_not_revive_a_failed_one(
    plane: Plane, driver: Driver
) -> None:
    async with plane.agent():
        plane.declare(version(1, "a"))
        await until(lambda: plane.ready(1))
        plane.declare(version(2, "exit"))
        await until(lambda: plane.failed(2) and len(driver.of(KEY)) == 1)
        driver.broken["a"] = GiveUp("StartFailed", "no")
        before = len(driver.started)
        await driver.remove(driver.of(KEY)[0])
        await until(lambda: len(driver.started) >= before + 3)
        assert plane.failed(2)
        driver.broken.clear()
        await until(lambda: len(driver.of(KEY)) == 1)
    assert driver.started.count((KEY, 2)) == 1


async def test_rolling_back_brings_the_old_content_under_a_new_generation(plane: Plane, driver: Driver) -> None:
    async with plane.agent():
        for generation, command in ((1, "a"), (2, "b"), (3, "a")):
            plane.declare(version(generation, command))
            await until(lambda generation=generation: plane.ready(generation))
        await until(lambda: len(driver.of(KEY)) == 1)
    assert driver.addresses(version(3, "a").template) == plane.gateway.addresses(HOST)


async def test_of_two_deployments_in_quick_succession_the_last_one_serves(plane: Plane, driver: Driver) -> None:
    async with plane.agent():
        plane.declare(version(1, "a"))
        await until(lambda: plane.ready(1))
        plane.declare(version(2, "b"))
        plane.declare(version(3, "c"))
        await until(lambda: plane.ready(3) and len(driver.of(KEY)) == 1)
    assert driver.addresses(version(3, "c").template) == plane.gateway.addresses(HOST)


async def test_scaling_restarts_nothing(plane: Plane, driver: Driver) -> None:
    async with plane.agent():
        plane.declare(version(1, "a", replicas=2))
        await until(lambda: plane.ready(1))
        before = set(driver.of(KEY))
        plane.declare(version(2, "a", replicas=4))
        await until(lambda: plane.ready(2) and len(driver.of(KEY)) == 4)
        assert before <= set(driver.of(KEY))
        plane.declare(version(3, "a", replicas=1))
        await until(lambda: len(driver.of(KEY)) == 1)
    assert set(driver.of(KEY)) <= before


async def test_an_agent_that_restarts_touches_nothing_that_runs(plane: Plane, driver: Driver) -> None:
    async with plane.agent():
        plane.declare(version(1, "a", replicas=2))
        await until(lambda: plane.ready(1))
    before, tables = set(driver.of(KEY)), len(plane.gateway.tables)
    async with plane.agent():
        await until(lambda: len(plane.gateway.tables) > tables)
        plane.declare(other(1))
        await until(lambda: plane.ready(1, "other_1/env_1"))
    assert set(driver.of(KEY)) == before
    assert driver.stopped == []


async def test_an_agent_that_restarts_in_the_middle_of_a_rollout_finishes_it(plane: Plane, driver: Driver) -> None:
    old, new = version(1, "a"), version(2, "b")
    async with plane.agent():
        plane.declare(old)
        await until(lambda: plane.ready(1))
        plane.declare(new)
        await until(lambda: bool(driver.addresses(new.template)))
    async with plane.agent():
        await until(lambda: plane.ready(2) and not driver.addresses(old.template))
    assert plane.gateway.addresses(HOST) == driver.addresses(new.template)


async def test_what_is_in_flight_survives_an_agent_that_restarts_while_it_drains(plane: Plane, driver: Driver) -> None:
    old, new = version(1, "a", drain_timeout=100_000.0), version(2, "b", drain_timeout=100_000.0)
    async with plane.agent():
        plane.declare(old)
        await until(lambda: plane.ready(1))
        plane.gateway.in_flight[f"@{old.template}"] = 1
        plane.declare(new)
        await until(lambda: plane.ready(2))
    async with plane.agent():
        plane.declare(other(1))
        await until(lambda: plane.ready(1, "other_1/env_1"))
        assert driver.addresses(old.template)
        assert driver.stopped == []
        plane.gateway.in_flight.clear()
        await until(lambda: not driver.addresses(old.template))


async def test_a_failed_version_stays_given_up_after_a_restart_of_the_agent(plane: Plane, driver: Driver) -> None:
    async with plane.agent():
        plane.declare(version(1, "a"))
        await until(lambda: plane.ready(1))
        plane.declare(version(2, "exit"))
        await until(lambda: plane.failed(2) and len(driver.of(KEY)) == 1)
    async with plane.agent():
        plane.declare(other(1))
        await until(lambda: plane.ready(1, "other_1/env_1"))
    assert driver.started.count((KEY, 2)) == 1


async def test_a_tombstone_removes_instances_and_routes_and_is_told(plane: Plane, driver: Driver) -> None:
    async with plane.agent():
        plane.declare(version(1, "a"))
        await until(lambda: plane.ready(1))
        plane.declare(Tombstone(key=KEY, confirmed_by="req_1"))
        await until(lambda: plane.told[KEY].removed)
    assert driver.of(KEY) == []
    assert plane.gateway.addresses(HOST) == set()


async def test_a_removal_is_told_only_after_the_driver_forgot_it(plane: Plane, driver: Driver) -> None:
    driver.broken["forget"] = Retry("no", after=0.1)
    async with plane.agent():
        plane.declare(version(1, "a"))
        await until(lambda: plane.ready(1))
        plane.declare(Tombstone(key=KEY, confirmed_by="req_1"))
        plane.declare(other(1))
        await until(lambda: plane.ready(1, "other_1/env_1") and driver.of(KEY) == [])
        assert not plane.told[KEY].removed
        driver.broken.clear()
        await until(lambda: plane.told[KEY].removed)


@pytest.mark.parametrize("error", [Retry("no room", 1.0), GiveUp("StartFailed", "no"), KeyError("a defect")])
async def test_a_workload_that_never_starts_does_not_stop_the_others(
    plane: Plane, driver: Driver, error: Exception
) -> None:
    driver.broken["sick"] = error
    async with plane.agent():
        plane.declare(other(0, "sick"), *(other(number) for number in range(1, 6)))
        await until(lambda: all(plane.ready(1, f"other_{number}/env_1") for number in range(1, 6)))
        assert driver.of("other_0/env_1") == []


async def test_an_application_that_takes_its_time_to_stop_holds_up_nobody(plane: Plane, driver: Driver) -> None:
    async with plane.agent():
        plane.declare(version(1, "a"))
        await until(lambda: plane.ready(1))
        driver.stop_gate = asyncio.Event()
        plane.declare(version(2, "b"))
        await until(lambda: plane.ready(2))
        plane.declare(other(1))
        await until(lambda: plane.ready(1, "other_1/env_1"))
        assert len(driver.of(KEY)) == 2
        driver.stop_gate.set()
        await until(lambda: len(driver.of(KEY)) == 1)


async def test_a_slow_fetch_is_not_taken_for_a_slow_start(plane: Plane, driver: Driver) -> None:
    driver.fetch_gate = asyncio.Event()
    async with plane.agent():
        plane.declare(version(1, "a", start_timeout=5.0))
        began = plane.clock.monotonic()
        await until(lambda: plane.clock.monotonic() - began > 10.0)
        driver.fetch_gate.set()
        await until(lambda: plane.ready(1))
    assert not plane.failed(1)


async def test_nothing_is_lost_while_the_gateway_does_not_answer(plane: Plane, driver: Driver) -> None:
    async with plane.agent():
        plane.declare(version(1, "a"))
        await until(lambda: plane.ready(1))
        plane.gateway.trouble = Retry("Envoy does not answer", after=0.05)
        plane.declare(version(2, "b"))
        await until(lambda: len(driver.of(KEY)) == 2)
        assert driver.stopped == []
        plane.gateway.trouble = None
        await until(lambda: plane.ready(2) and len(driver.of(KEY)) == 1)


async def test_a_workload_is_started_although_the_gateway_refuses_the_table(plane: Plane, driver: Driver) -> None:
    plane.gateway.trouble = GiveUp("GatewayRejected", "no")
    async with plane.agent():
        plane.declare(version(1, "a"))
        await until(lambda: len(driver.of(KEY)) == 1)
        await until(lambda: (c := plane.condition(ConditionType.ROUTED)) is not None and c.reason == "GatewayRejected")
        assert not plane.ready(1)
