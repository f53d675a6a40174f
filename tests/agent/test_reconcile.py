"""The loop from end to end, over instances and routes in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minuet.agent.artifacts import HOPEFUL_SECONDS
from minuet.agent.drivers.memory import MemoryDriver
from minuet.agent.drivers.port import InstanceSpec, Layers
from minuet.agent.model import Failure
from minuet.kernel.conditions import ConditionType, Status
from minuet.kernel.retry import GiveUp, Retry
from minuet.protocol.desired import Artifact, Route, Tombstone, Workload
from tests.given.documents import ARTIFACT, workload
from tests.given.plane import Plane, QuickClock, until

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
        self.fetched: list[str] = []
        self.lost: set[str] = set()
        self.kept: frozenset[str] = frozenset()

    async def ensure_artifact(self, artifact: Artifact) -> Layers:
        self.fetched.append(artifact.digest)
        if error := self.broken.get("fetch"):
            raise error
        self.lost.discard(artifact.digest)
        if self.fetch_gate is not None:
            await self.fetch_gate.wait()
        return await super().ensure_artifact(artifact)

    async def start(self, spec: InstanceSpec) -> None:
        self.started.append((spec.workload.key, spec.workload.generation))
        if error := self.broken.get(spec.workload.command):
            raise error
        if spec.workload.artifact.digest in self.lost:
            raise Retry("layer 22 is not unpacked here", 0.01, "LayerMissing")
        await super().start(spec)

    async def prune_artifacts(self, keep: frozenset[str]) -> None:
        self.kept = keep

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


def of_artifact(digit: str) -> Artifact:
    return ARTIFACT.model_copy(update={"digest": f"sha256:{digit * 64}"})


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


@pytest.mark.parametrize(
    ("code", "reason"), [("NoCapacity", "NoCapacity"), ("DiskFull", "DiskFull"), (None, "StartFailed")]
)
async def test_a_start_that_never_succeeds_is_told_at_once_and_given_up_in_its_time(
    plane: Plane, driver: Driver, code: str | None, reason: str
) -> None:
    plane.clock = QuickClock(speed=1.0)
    driver.broken["a"] = Retry("there is no room", 0.1, code)
    async with plane.agent():
        plane.declare(version(1, "a", start_timeout=0.6))
        began = plane.clock.monotonic()
        await until(lambda: (c := plane.condition(ConditionType.STARTED)) is not None and c.reason == reason)
        told = plane.condition(ConditionType.STARTED)
        assert told is not None
        assert (told.status, told.message) == (Status.FALSE, "there is no room")
        await until(lambda: plane.failed(1))
        took = plane.clock.monotonic() - began
    assert plane.inventory.contents().memories[KEY].failure == Failure(1, reason, "there is no room")
    assert 0.6 <= took < 3.0
    assert len(driver.started) > 2


async def test_a_start_that_fails_for_a_while_goes_on_to_ready(plane: Plane, driver: Driver) -> None:
    driver.broken["a"] = Retry("the launcher does not answer", 0.01)
    async with plane.agent():
        plane.declare(version(1, "a"))
        await until(lambda: len(driver.started) > 2)
        driver.broken.clear()
        await until(lambda: plane.ready(1))
        told = plane.condition(ConditionType.STARTED)
    assert told is not None
    assert (told.status, told.reason) == (Status.TRUE, "Started")


async def test_what_serves_and_cannot_be_started_again_is_told_with_its_reason(plane: Plane, driver: Driver) -> None:
    async with plane.agent():
        plane.declare(version(1, "a", start_timeout=5.0))
        await until(lambda: plane.ready(1))
        driver.broken["a"] = Retry("there is no room", 0.01, "NoCapacity")
        await driver.remove(driver.of(KEY)[0])
        await until(lambda: (c := plane.condition(ConditionType.READY)) is not None and c.reason == "NoCapacity")
        tried = len(driver.started)
        await until(lambda: len(driver.started) > tried + 1)
        assert not plane.failed(1)
        driver.broken.clear()
        await until(lambda: plane.ready(1))


async def test_an_artifact_that_vanished_is_fetched_again_before_the_next_start(plane: Plane, driver: Driver) -> None:
    driver.lost.add(ARTIFACT.digest)
    driver.fetch_gate = asyncio.Event()
    async with plane.agent():
        plane.declare(version(1, "a"))
        await until(lambda: driver.fetched == [ARTIFACT.digest])
        driver.fetch_gate.set()
        await until(lambda: plane.ready(1))
        driver.lost.add(ARTIFACT.digest)
        await driver.remove(driver.of(KEY)[0])
        await until(lambda: len(driver.started) > 2 and plane.ready(1) and len(driver.of(KEY)) == 1)
    assert len(driver.fetched) == 2


async def test_the_running_release_and_three_before_it_are_kept_for_each_component_and_over_restarts(
    plane: Plane, driver: Driver
) -> None:
    second = "cmp_2/env_1"
    for generation, digit in enumerate("abcdeb", start=1):
        async with plane.agent():
            quiet = version(generation, "q", key=second, routes=(), artifact=of_artifact(str(generation)))
            plane.declare(version(generation, "x", artifact=of_artifact(digit)), quiet)
            await until(lambda g=generation: plane.ready(g) and plane.ready(g, second))
    async with plane.agent():
        expected = frozenset(of_artifact(digit).digest for digit in "cdeb3456")
        await until(lambda: driver.kept == expected)
        plane.declare(Tombstone(key=second, confirmed_by="req_1"))
        await until(lambda: plane.told[second].removed)
        plane.inventory.forget(second)
        plane.reconciler.poke()
        await until(lambda: driver.kept == frozenset(of_artifact(digit).digest for digit in "cdeb"))


async def test_an_inventory_that_knows_nothing_is_no_reason_to_remove_artifacts(plane: Plane, driver: Driver) -> None:
    driver.kept = untouched = frozenset({"all"})
    async with plane.agent():
        await until(lambda: bool(plane.gateway.tables))
        plane.reconciler.poke()
        await asyncio.sleep(0)
        assert driver.kept == untouched
        plane.declare(version(1, "a"))
        await until(lambda: driver.kept == {ARTIFACT.digest})


@pytest.mark.parametrize(
    ("code", "reason"), [(None, "ArtifactUnavailable"), ("DiskFull", "DiskFull"), ("Unheard", "ArtifactUnavailable")]
)
async def test_a_fetch_in_trouble_is_told_as_going_on_before_it_is_told_as_failing(
    plane: Plane, driver: Driver, code: str | None, reason: str
) -> None:
    plane.clock = QuickClock(speed=200.0)
    driver.broken["fetch"] = Retry("the artifact store does not answer", 0.01, code)
    async with plane.agent():
        plane.declare(version(1, "a"))
        began = plane.clock.monotonic()
        await until(lambda: (c := plane.condition(ConditionType.FETCHED)) is not None and "answer" in c.message)
        told = plane.condition(ConditionType.FETCHED)
        assert told is not None
        assert told.reason == "Fetching"
        await until(lambda: (c := plane.condition(ConditionType.FETCHED)) is not None and c.reason == reason)
        assert plane.clock.monotonic() - began >= HOPEFUL_SECONDS
        driver.broken.clear()
        await until(lambda: plane.ready(1))


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


async def test_routes_that_the_gateway_left_out_are_told_of_their_workload_and_of_no_other(plane: Plane) -> None:
    thief = version(1, "a", key="thief/env_1")
    bad = version(1, "a", key="bad/env_1", routes=(Route(endpoint="web", host="x.localhost", base_path="no", port=80),))
    async with plane.agent():
        plane.declare(version(1, "a"))
        await until(lambda: plane.ready(1))
        plane.declare(thief, bad, other(1))
        for key in (thief.key, bad.key):
            await until(lambda k=key: (c := plane.condition(ConditionType.ROUTED, k)) and c.reason == "GatewayRejected")
            ready = plane.condition(ConditionType.READY, key)
            assert ready is not None
            assert (ready.status, ready.reason) == (Status.FALSE, "GatewayRejected")
        await until(lambda: plane.ready(1, "other_1/env_1"))
        assert plane.ready(1)
    told = plane.condition(ConditionType.ROUTED, thief.key)
    assert told is not None
    assert "belongs to cmp_1/env_1" in told.message


async def test_what_happens_while_the_gateway_is_away_is_told_meanwhile(plane: Plane, driver: Driver) -> None:
    async with plane.agent():
        plane.declare(version(1, "a"))
        await until(lambda: plane.ready(1))
        plane.gateway.gate = asyncio.Event()
        plane.declare(version(2, "b"))
        await until(lambda: (c := plane.condition(ConditionType.HEALTHY)) is not None and c.reason == "Healthy")
        await until(lambda: (c := plane.condition(ConditionType.ROUTED)) is not None and c.status is Status.UNKNOWN)
        plane.declare(version(2, "b"), other(1))
        await until(lambda: len(plane.told["other_1/env_1"].instances) == 1 if "other_1/env_1" in plane.told else False)
        crashed = driver.of("other_1/env_1")[0]
        driver.crash(crashed)
        await until(lambda: plane.told["other_1/env_1"].instances[0].restarts == 1)
        assert plane.told[KEY].serving_generation == 1
        assert driver.stopped == []
        plane.gateway.gate.set()
        await until(lambda: plane.ready(2) and plane.ready(1, "other_1/env_1") and len(driver.of(KEY)) == 1)
