"""The state machine of deployments: what may be said of one, whatever was reported in whatever order."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minuet.control.delivery import model
from minuet.control.delivery.model import Action, Deployment, DeploymentPhase, PlaneView, State, Target, Trouble
from minuet.control.delivery.observations import MAX_WORD, bounded
from minuet.kernel.conditions import ConditionType, Status, find
from minuet.kernel.reasons import REASONS
from minuet.protocol.observed import InstancePhase, ObservedCondition, ObservedInstance, ObservedWorkload

NOW = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)
UP = PlaneView(None, (1, 9), None)
DOWN = PlaneView(NOW, (1, 9), None)
OBSERVED = (
    ConditionType.FETCHED,
    ConditionType.STARTED,
    ConditionType.HEALTHY,
    ConditionType.ROUTED,
    ConditionType.READY,
)


def deployment(generation: int = 2, **changes: object) -> Deployment:
    made = Deployment(
        id=f"dep_{generation}",
        organization_id="org_1",
        project_id="prj_1",
        component_id="cmp_1",
        environment_id="env_1",
        name=f"20261124-1.0.{generation}",
        generation=generation,
        origin=generation,
        release_id="rel_1",
        release="20261124-1",
        build_id="bld_1",
        build="web-1",
        config_revision=0,
        replicas=1,
        state=State.ACTIVE,
        action=Action.DEPLOY,
        restart="",
        requested_by="ada",
        created_at=NOW,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def target(**changes: object) -> Target:
    made = Target(
        organization_id="org_1",
        project_id="prj_1",
        component_id="cmp_1",
        environment_id="env_1",
        plane_id="pln_1",
        current_id="dep_2",
        generation=2,
        removed_by=None,
        appended_id="dep_2",
        appended_hash="sha256:1",
        appended_epoch=1,
        appended_revision=5,
        addresses=(),
        not_in_force=(),
        trouble=None,
        observed=None,
        observed_at=None,
        updated_at=NOW,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def report(generation: int, status: Status = Status.TRUE, reason: str = "Ready", **changes: object) -> ObservedWorkload:
    told = tuple(
        ObservedCondition(type=kind, status=status, reason=reason, message=reason, since=NOW) for kind in OBSERVED
    )
    return ObservedWorkload(key="cmp_1/env_1", generation=generation, conditions=told).model_copy(update=changes)


def phase(made: Deployment, known: Target, plane: PlaneView = UP) -> DeploymentPhase:
    return model.phase(made, known, plane, model.conditions(made, known, plane))


reports = st.builds(
    report,
    generation=st.integers(1, 3),
    status=st.sampled_from(Status),
    reason=st.sampled_from(["Ready", "Waiting", "CrashLoop", "Starting"]),
    serving_generation=st.sampled_from([None, 1, 2, 3]),
)
planes = st.builds(
    PlaneView,
    unknown_since=st.sampled_from([None, NOW]),
    acknowledged=st.tuples(st.integers(1, 2), st.integers(0, 9)),
    trouble=st.sampled_from([None, "revision 5 was refused"]),
)


@given(seen=reports, plane=planes)
def test_ready_is_said_only_of_what_the_last_report_saw_serving(seen: ObservedWorkload, plane: PlaneView) -> None:
    known = target(observed=seen)
    ready = find(model.conditions(deployment(), known, plane), ConditionType.READY)
    assert ready is not None
    if ready.status is Status.TRUE:
        assert plane.unknown_since is None
        assert seen.generation == 2
        assert seen.serving_generation in (None, 2)
    if phase(deployment(), known, plane) is DeploymentPhase.READY:
        assert ready.status is Status.TRUE


@given(seen=st.lists(reports, min_size=1, max_size=6), plane=planes)
def test_any_order_of_reports_ends_in_what_the_last_one_says(seen: list[ObservedWorkload], plane: PlaneView) -> None:
    known = target()
    for item in seen:
        known = replace(known, observed=item)
    assert model.conditions(deployment(), known, plane) == model.conditions(
        deployment(), target(observed=seen[-1]), plane
    )


@given(seen=reports, plane=planes)
def test_every_condition_speaks_of_the_deployment_and_has_a_known_reason(
    seen: ObservedWorkload, plane: PlaneView
) -> None:
    for condition in model.conditions(deployment(), target(observed=seen), plane):
        assert condition.generation == 2
        assert condition.reason in REASONS


def test_a_report_on_an_older_generation_says_nothing_of_the_newer() -> None:
    known = target(observed=report(1, serving_generation=1))
    told = model.conditions(deployment(), known, UP)
    assert {find(told, kind).reason for kind in OBSERVED} == {"Waiting"}  # type: ignore[union-attr]
    assert phase(deployment(), known) is DeploymentPhase.PROGRESSING


@pytest.mark.parametrize(
    ("known", "plane", "expected"),
    [
        (target(appended_id="dep_1"), UP, DeploymentPhase.PENDING),
        (target(), PlaneView(None, (1, 4), None), DeploymentPhase.PENDING),
        (target(), UP, DeploymentPhase.PROGRESSING),
        (target(observed=report(2, Status.FALSE, "Starting")), UP, DeploymentPhase.PROGRESSING),
        (target(observed=report(2, serving_generation=2)), UP, DeploymentPhase.READY),
        (target(observed=report(2, serving_generation=1)), UP, DeploymentPhase.PROGRESSING),
        (target(observed=report(2, Status.FALSE, "CrashLoop")), UP, DeploymentPhase.FAILED),
        (target(), PlaneView(None, (1, 4), "revision 5 was refused"), DeploymentPhase.FAILED),
        (target(), PlaneView(None, (1, 4), "no room", "DiskFull"), DeploymentPhase.FAILED),
        (target(), PlaneView(None, (1, 9), "two logs", "PlaneDiverged", is_diverged=True), DeploymentPhase.FAILED),
        (target(trouble=Trouble("NoCapacity", "full", NOW)), UP, DeploymentPhase.FAILED),
        (target(trouble=Trouble("Waiting", "no key", NOW)), UP, DeploymentPhase.PENDING),
        (target(observed=report(2, serving_generation=2)), DOWN, DeploymentPhase.UNKNOWN),
        (target(current_id="dep_3", generation=3), UP, DeploymentPhase.SUPERSEDED),
        (target(observed=report(2, serving_generation=2), not_in_force=("proxy",)), UP, DeploymentPhase.READY),
    ],
)
def test_all_conditions_in_one_word(known: Target, plane: PlaneView, expected: DeploymentPhase) -> None:
    assert phase(deployment(), known, plane) is expected


def test_suspended_is_said_when_nothing_runs_any_more() -> None:
    made = deployment(state=State.SUSPENDED)
    running = ObservedInstance(id="i1", template="t", generation=1, phase=InstancePhase.STOPPING, ready=False)
    stopping = report(2, Status.FALSE, "Suspended", instances=(running,))
    assert phase(made, target(observed=stopping)) is DeploymentPhase.PROGRESSING
    stopped = report(2, Status.FALSE, "Suspended")
    assert phase(made, target(observed=stopped)) is DeploymentPhase.SUSPENDED


def test_rolling_back_skips_what_was_never_ready_and_what_only_scaled() -> None:
    good = deployment(1, ready_at=NOW)
    scaled = deployment(2, origin=1, ready_at=NOW)
    broken = deployment(3)
    current = deployment(4)
    found = model.rollback_target([current, broken, scaled, good], current)
    assert found is not None
    assert found.generation == 1


def test_content_that_became_ready_only_after_it_was_scaled_is_good() -> None:
    first = deployment(1)
    scaled = deployment(2, origin=1, ready_at=NOW)
    assert model.rollback_target([deployment(3), scaled, first], deployment(3)) == first


def test_after_a_rollback_the_next_one_goes_further_back() -> None:
    history = [deployment(n, ready_at=NOW) for n in (3, 2, 1)]
    back = deployment(4, origin=2)
    assert model.rollback_target([back, *history], back) == history[2]
    assert model.rollback_target(history, deployment(5, origin=1)) is None


@pytest.mark.parametrize(
    ("ready", "expected"),
    [("Starting", DeploymentPhase.PROGRESSING), ("NoCapacity", DeploymentPhase.FAILED)],
)
def test_a_start_that_is_tried_again_fails_the_deployment_only_once_it_is_given_up(
    ready: str, expected: DeploymentPhase
) -> None:
    told = tuple(
        ObservedCondition(type=kind, status=Status.FALSE, reason=reason, message="there is no room", since=NOW)
        for kind, reason in ((ConditionType.STARTED, "NoCapacity"), (ConditionType.READY, ready))
    )
    seen = ObservedWorkload(key="cmp_1/env_1", generation=2, conditions=told)
    assert phase(deployment(), target(observed=seen)) is expected


@pytest.mark.parametrize(
    ("plane", "reason"),
    [
        (PlaneView(None, (1, 4), "no room", "DiskFull"), "DiskFull"),
        (PlaneView(None, (1, 4), "too odd"), "DesiredStateInvalid"),
        (PlaneView(None, (1, 9), "two logs", "PlaneDiverged", is_diverged=True), "PlaneDiverged"),
        (PlaneView(NOW, (1, 9), "two logs", "PlaneDiverged", is_diverged=True), "PlaneDiverged"),
    ],
)
def test_delivered_is_not_said_of_a_plane_in_trouble(plane: PlaneView, reason: str) -> None:
    told = find(model.conditions(deployment(), target(), plane), ConditionType.DELIVERED)
    assert told is not None
    assert (told.status, told.reason, told.message) == (Status.FALSE, reason, plane.trouble)


def test_whatever_an_agent_sends_what_is_kept_of_it_is_bounded() -> None:
    long = "x" * 100_000
    words = {"id": long, "template": long, "reason": long, "message": long, "address": long, "isolation": long}
    instance = ObservedInstance(generation=1, phase=InstancePhase.RUNNING, ready=True, **words)
    condition = ObservedCondition(
        type=ConditionType.READY, status=Status.TRUE, reason=long, message=long, since=NOW, log_tail=(long,) * 1000
    )
    seen = ObservedWorkload(
        key="cmp_1/env_1",
        generation=1,
        serving_release=long,
        conditions=(condition,) * 1000,
        instances=(instance,) * 1000,
    )
    assert len(bounded(seen).wire()) < 1_100_000
    assert {len(item.id) for item in bounded(seen).instances} == {MAX_WORD}
