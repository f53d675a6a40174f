"""What the agent reports, and when."""

from __future__ import annotations

import asyncio
import datetime

import pytest

from minuet.agent.inventory import Contents
from minuet.agent.model import Memory, WorkloadPlan
from minuet.agent.observe import Observations
from minuet.kernel.clock import SystemClock
from minuet.kernel.conditions import Condition, ConditionType, Status
from minuet.protocol.desired import Unreadable
from tests.given.documents import workload

KEY = "cmp_1/env_1"
T0 = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def _plan(status: Status, minute: int, generation: int = 1, **changes: object) -> WorkloadPlan:
    since = T0 + datetime.timedelta(minutes=minute)
    condition = Condition(ConditionType.READY, status, "Ready", "", generation, since)
    return WorkloadPlan(conditions=(condition,), **changes)  # type: ignore[arg-type]


def _contents(generation: int = 1) -> Contents:
    return Contents({KEY: workload(generation=generation)})


@pytest.fixture
def observations() -> Observations:
    return Observations(SystemClock())


async def _silent(observations: Observations) -> bool:
    """Whether nothing waits to be told."""
    task = asyncio.ensure_future(observations.news())
    await asyncio.sleep(0)
    waiting = not observations._news.is_set()
    task.cancel()
    return waiting


async def test_a_change_is_told_once(observations: Observations) -> None:
    observations.note({KEY: _plan(Status.FALSE, 0)}, {}, _contents())
    assert [item.key for item in await observations.news()] == [KEY]
    observations.note({KEY: _plan(Status.FALSE, 1)}, {}, _contents())
    assert await _silent(observations)


async def test_since_moves_only_with_the_status(observations: Observations) -> None:
    for minute, status in enumerate([Status.FALSE, Status.FALSE, Status.TRUE, Status.TRUE]):
        observations.note({KEY: _plan(status, minute)}, {}, _contents())
    (told,) = observations.everything()
    assert told.conditions[0].since == T0 + datetime.timedelta(minutes=2)


async def test_a_burst_of_changes_is_one_report_of_the_last_state(observations: Observations) -> None:
    for minute, status in enumerate([Status.FALSE, Status.TRUE, Status.FALSE, Status.TRUE]):
        observations.note({KEY: _plan(status, minute)}, {}, _contents())
    (told,) = await observations.news()
    assert told.conditions[0].status is Status.TRUE
    assert await _silent(observations)


async def test_everything_is_told_again_to_a_new_link(observations: Observations) -> None:
    observations.note({KEY: _plan(Status.TRUE, 0)}, {}, _contents())
    await observations.news()
    assert [item.key for item in observations.everything()] == [KEY]


async def test_conditions_of_an_older_generation_are_not_carried_over(observations: Observations) -> None:
    observations.note({KEY: _plan(Status.TRUE, 0)}, {}, _contents())
    observations.note({KEY: WorkloadPlan()}, {}, _contents(generation=2))
    (told,) = observations.everything()
    assert (told.generation, told.conditions) == (2, ())


async def test_the_version_that_serves_is_named_beside_the_one_desired(observations: Observations) -> None:
    serving = workload(generation=1, release="r1")
    contents = Contents({KEY: workload(generation=2, release="r2")}, memories={KEY: Memory(serving)})
    observations.note({KEY: _plan(Status.FALSE, 0, 2, memory=Memory(serving))}, {}, contents)
    (told,) = observations.everything()
    assert (told.generation, told.serving_generation, told.serving_release) == (2, 1, "r1")


async def test_a_removal_is_forgotten_only_after_it_was_told(observations: Observations) -> None:
    observations.note({KEY: WorkloadPlan(removed=True)}, {}, Contents(tombstones=frozenset({KEY})))
    assert observations.removals() == ()
    await observations.news()
    assert observations.removals() == (KEY,)
    observations.drop(KEY)
    assert observations.everything() == ()


async def test_a_document_set_aside_is_told_under_its_own_generation(observations: Observations) -> None:
    lost = Unreadable(key=KEY, generation=2, body="{}", problem="command: missing")
    contents = Contents(
        {KEY: workload(generation=1)}, memories={KEY: Memory(workload(generation=1))}, aside={KEY: lost}
    )
    observations.note({KEY: _plan(Status.TRUE, 0)}, {}, contents)
    (told,) = observations.everything()
    assert (told.generation, told.serving_generation) == (2, 1)
    assert told.conditions[0].reason == "DesiredStateInvalid"


async def test_instances_without_a_document_are_not_told_as_a_workload(observations: Observations) -> None:
    observations.note({"k": WorkloadPlan()}, {}, Contents())
    assert observations.everything() == ()
