"""The plan, in a world that crashes, ticks and gets new revisions in any order."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from minuet.agent.drivers.port import InstanceState
from minuet.agent.model import ArtifactState, Memory, Moment, Remove, Start, Stop, Unrouted, View
from minuet.agent.plan import QUIET_SECONDS, plan_workload
from minuet.kernel.conditions import ConditionType, Status, find
from minuet.protocol.observed import InstancePhase
from tests.given.documents import ARTIFACT
from tests.given.world import BAD, START, World, version

_EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("declare"), st.sampled_from(["a", "b", "c", BAD]), st.integers(0, 3)),
        st.tuples(st.just("crash"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("tick"), st.sampled_from([0.01, 1.0, 40.0]), st.integers(1, 4)),
    ),
    max_size=25,
)


def _play(world: World, events: list[tuple[str, object, int]]) -> int:
    generation = 1
    for kind, what, number in events:
        match kind:
            case "declare":
                generation += 1
                world.declare(version(str(what), generation, replicas=number))
            case "crash":
                world.crash(int(str(what)))
            case _:
                for _ in range(number):
                    world.step(float(str(what)))
    return generation


@settings(max_examples=120, deadline=None)
@given(_EVENTS, st.sampled_from(["x", "a"]), st.integers(0, 3))
def test_any_sequence_of_revisions_and_crashes_ends_with_what_is_desired(events, last, replicas) -> None:
    world = World()
    world.declare(version("a", 1))
    generation = _play(world, events)
    final = version(last, generation + 1, replicas=replicas)
    world.declare(final)
    world.settle()
    assert world.memory == Memory(final, None)
    assert len(world.instances) == len(world.ready(final.template)) == replicas
    assert world.endpoints_in_force() == {state.address for state in world.ready(final.template)}


@settings(max_examples=60, deadline=None)
@given(_EVENTS)
def test_a_version_that_fails_leaves_the_last_good_one_serving(events) -> None:
    world = World()
    world.declare(version("a", 1))
    generation = _play(world, events)
    good = version("good", generation + 1, replicas=2)
    world.declare(good)
    world.settle()
    world.declare(version(BAD, generation + 2, replicas=2))
    world.settle()
    assert world.memory.serving == good
    assert world.endpoints_in_force() == {state.address for state in world.ready(good.template)}
    assert {state.template for state in world.instances.values()} == {good.template}
    assert world.memory.failure is not None
    assert world.memory.failure.reason == "ExitedAtOnce"


def _serving(name: str = "a", replicas: int = 2) -> World:
    world = World()
    world.declare(version(name, 1, replicas=replicas))
    world.settle(10)
    assert world.memory.serving is not None
    return world


def test_a_failed_version_is_not_tried_again_until_a_new_generation() -> None:
    world = _serving()
    world.declare(version(BAD, 2))
    world.settle()
    tried = world.starts.count((2, BAD))
    world.settle()
    assert world.starts.count((2, BAD)) == tried == 1
    world.declare(version(BAD, 3))
    world.settle()
    assert world.starts.count((3, BAD)) == 1


def test_a_failed_version_is_told_with_its_reason_and_what_goes_on_serving() -> None:
    world = _serving()
    world.declare(version(BAD, 2))
    world.settle(20)
    told = find(world.last.conditions, ConditionType.READY)
    assert told is not None
    assert (told.status, told.reason) == (Status.FALSE, "ExitedAtOnce")
    assert "release a keeps serving" in told.message


def test_scaling_up_and_down_restarts_nothing() -> None:
    world = _serving(replicas=2)
    before = set(world.instances)
    world.declare(version("a", 2, replicas=4))
    world.settle(10)
    assert before < set(world.instances)
    assert not world.stops
    world.declare(version("a", 3, replicas=1))
    world.settle(20)
    assert len(world.instances) == 1
    assert set(world.instances) < before


def test_scaling_down_keeps_the_healthy_instance() -> None:
    document = version("a", 2, replicas=1)
    sick, well = (
        InstanceState(name, document.key, document.template, 1, InstancePhase.RUNNING, ready, f"10.0.0.{ready + 1}")
        for name, ready in (("i-0", False), ("i-1", True))
    )
    plan = plan_workload(
        View(document.key, document, False, Memory(document), (sick, well), routed=frozenset({document.template})),
        Moment(START, 0.0),
    )
    assert plan.routing is not None
    assert plan.routing.endpoints == (well.location,)


def test_suspending_empties_and_resuming_fills() -> None:
    world = _serving()
    world.declare(version("a", 2, replicas=0))
    world.settle(20)
    assert not world.instances
    told = find(world.last.conditions, ConditionType.READY)
    assert told is not None
    assert told.reason == "Suspended"
    world.declare(version("a", 3, replicas=2))
    world.settle(20)
    assert len(world.endpoints_in_force()) == 2


def test_a_tombstone_ends_in_removed() -> None:
    world = _serving()
    world.bury()
    removed = [world.step().removed for _ in range(10)]
    assert any(removed)
    assert not world.instances


def test_a_tombstone_takes_routes_away_before_it_stops_anything() -> None:
    world = _serving()
    view = replace(world.view(), desired=None, tombstoned=True)
    plan = plan_workload(view, Moment(START, world.seconds))
    assert plan.routing is None
    assert not plan.actions


@settings(max_examples=40, deadline=None)
@given(_EVENTS)
def test_the_absence_of_a_document_stops_nothing(events) -> None:
    world = World()
    world.declare(version("a", 1))
    generation = _play(world, events)
    world.declare(version("good", generation + 1, replicas=2))
    world.settle()
    stops, endpoints = list(world.stops), world.endpoints_in_force()
    world.lose_document()
    world.settle(30)
    assert world.stops == stops
    assert world.endpoints_in_force() == endpoints


def test_what_served_is_started_again_while_its_document_is_lost() -> None:
    world = _serving(replicas=2)
    world.instances.clear()
    world.lose_document()
    world.settle(5)
    assert len(world.endpoints_in_force()) == 2


def test_instances_without_any_document_are_left_alone() -> None:
    stranger = InstanceState("i-0", "k", "t", 1, InstancePhase.RUNNING, True, "10.0.0.1")
    plan = plan_workload(View("k", None, False, Memory(), (stranger,)), Moment(START, 0.0))
    assert (plan.actions, plan.routing, plan.removed) == ((), None, False)


def test_an_instance_that_is_still_stopping_does_not_condemn_the_next_attempt() -> None:
    document = version("a", 2)
    leftover = InstanceState("i-0", document.key, document.template, 1, InstancePhase.STOPPING, restarts=3)
    plan = plan_workload(View(document.key, document, False, Memory(), (leftover,)), Moment(START, 0.0))
    assert plan.memory.failure is None


def test_a_version_that_never_listens_is_given_up_after_its_time_to_start() -> None:
    document = version("slow", 1)
    mute = InstanceState(
        "i-0", document.key, document.template, 1, InstancePhase.RUNNING, reason="NotListening", address="10.0.0.1"
    )
    view = View(document.key, document, False, Memory(), (mute,), began=0.0)
    patient = plan_workload(view, Moment(START, document.start_timeout - 1))
    assert patient.memory.failure is None
    assert patient.look_again_in is not None
    assert patient.look_again_in <= 1.1
    given_up = plan_workload(view, Moment(START, document.start_timeout))
    assert given_up.memory.failure is not None
    assert given_up.memory.failure.reason == "NotListening"


def test_a_hopeless_artifact_is_a_failure_and_starts_nothing() -> None:
    document = version("a", 1)
    lost = {ARTIFACT.digest: ArtifactState(False, "ArtifactCorrupt", "The digest differs.", True)}
    plan = plan_workload(View(document.key, document, False, Memory(), artifacts=lost), Moment(START, 0.0))
    assert plan.memory.failure is not None
    assert plan.memory.failure.reason == "ArtifactCorrupt"
    assert not any(isinstance(action, Start) for action in plan.actions)


def test_a_drained_version_waits_for_what_is_in_flight() -> None:
    world = _serving("a", replicas=1)
    world.declare(version("b", 2))
    while world.in_force is None or world.in_force.workload.command != "b":
        world.step()
        assert world.seconds < 100
    view = world.view()
    old = next(state.template for state in world.instances.values() if world.commands[state.template] == "a")
    busy = replace(view, unrouted={old: replace(view.unrouted[old], active=1)})
    plan = plan_workload(busy, Moment(START, world.seconds))
    assert not any(isinstance(action, Stop | Remove) for action in plan.actions)
    assert plan.routing is not None
    assert old in plan.routing.standby


def test_a_version_without_a_route_is_stopped_only_after_a_moment_of_quiet() -> None:
    world = _serving("a", replicas=1)
    world.declare(version("b", 2))
    while world.in_force is None or world.in_force.workload.command != "b":
        world.step()
        assert world.seconds < 100
    old = next(state.template for state in world.instances.values() if world.commands[state.template] == "a")
    since = world.seconds
    idle = replace(world.view(), unrouted={old: Unrouted(since, 0)})
    early = plan_workload(idle, Moment(START, since + QUIET_SECONDS - 0.01))
    assert not any(isinstance(action, Stop) for action in early.actions)
    assert early.look_again_in is not None
    assert early.look_again_in <= QUIET_SECONDS
    late = plan_workload(idle, Moment(START, since + QUIET_SECONDS))
    assert any(isinstance(action, Stop) for action in late.actions)
