"""What a declared health check means for verdict, routing and story, without processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from minuet.agent import story
from minuet.agent.drivers.port import InstanceState
from minuet.agent.drivers.process import verdict
from minuet.agent.drivers.process.verdict import Tally, Verdict
from minuet.agent.model import Memory, Moment, View
from minuet.agent.plan import plan_workload
from minuet.kernel.conditions import ConditionType, Status, find
from minuet.protocol.desired import Probe
from minuet.protocol.observed import InstancePhase
from tests.given.documents import workload
from tests.given.world import START

CHECK = Probe(port=8080, path="/healthz", failure_threshold=3, success_threshold=2)
DOCUMENT = workload(replicas=2, health=CHECK)
NOW = Moment(START, 10.0)
GOOD = InstanceState("i-0", DOCUMENT.key, DOCUMENT.template, 1, InstancePhase.RUNNING, True, "10.0.0.1")
BAD = replace(GOOD, id="i-1", address="10.0.0.2", ready=False, reason="Unhealthy", message="status 503 for /healthz")


def played(answers: str) -> str:
    """`+` for a check that passed and `-` for one that failed in; `1` for healthy and `0` for not out."""
    tally, shown = Tally(), ""
    for answer in answers:
        tally = tally.after(answer == "+", CHECK)
        shown += "1" if tally.healthy else "0"
    return shown


@pytest.mark.parametrize(
    ("answers", "verdicts"),
    [
        ("++", "01"),
        ("+-++", "0001"),
        ("++--+--+", "01111111"),
        ("++---", "01110"),
        ("++---+-++", "011100001"),
        ("++---++--", "011100111"),
        ("------++", "00000001"),
    ],
)
def test_a_verdict_turns_only_after_enough_answers_in_a_row(answers: str, verdicts: str) -> None:
    assert played(answers) == verdicts


def test_a_verdict_is_remembered_of_one_run_only(tmp_path: Path) -> None:
    file = tmp_path / "one.verdict"
    assert verdict.noted(file, 7, 1.5) is None
    kept = Verdict(7, 1.5, False, "status 503")
    kept.note(file)
    assert verdict.noted(file, 7, 1.5) == kept
    assert verdict.noted(file, 8, 1.5) is None
    assert verdict.noted(file, 7, 2.5) is None
    file.write_text("{")
    assert verdict.noted(file, 7, 1.5) is None


def view(*instances: InstanceState, document: object = DOCUMENT) -> View:
    routed = frozenset({DOCUMENT.template})
    return View(DOCUMENT.key, document, False, Memory(document), instances, routed=routed)  # type: ignore[arg-type]


def endpoints(*instances: InstanceState) -> tuple[str, ...]:
    routing = plan_workload(view(*instances), NOW).routing
    assert routing is not None
    return tuple(location.address for location in routing.endpoints)


def test_an_instance_that_fails_its_check_gets_no_requests_also_when_it_is_the_last_one() -> None:
    assert endpoints(GOOD, BAD) == ("10.0.0.1",)
    assert endpoints(replace(BAD, id="i-0", address="10.0.0.1"), BAD) == ()
    assert endpoints(replace(BAD, reason="ProbeFailed")) == ()


def test_instances_nobody_has_looked_at_yet_keep_their_requests() -> None:
    unseen = replace(GOOD, ready=False, phase=InstancePhase.STARTING)
    assert endpoints(unseen, BAD) == ("10.0.0.1",)


def test_without_a_declared_check_the_last_instance_keeps_its_requests() -> None:
    bare = workload(replicas=1)
    slow = replace(GOOD, template=bare.template, ready=False, reason="ProbeFailed")
    routing = plan_workload(view(slow, document=bare), NOW).routing
    assert routing is not None
    assert [location.address for location in routing.endpoints] == ["10.0.0.1"]


def test_another_check_is_another_version_that_has_to_pass_first() -> None:
    assert workload(health=CHECK).template != workload().template
    assert workload(health=CHECK).template != workload(health=CHECK.model_copy(update={"period": 1.0})).template


def test_what_the_check_said_is_told_soon_after_the_start_too() -> None:
    told = story.steady(view(BAD), DOCUMENT, [BAD], NOW)
    for kind in (ConditionType.HEALTHY, ConditionType.READY):
        condition = find(told, kind)
        assert condition is not None
        assert (condition.status, condition.reason) == (Status.FALSE, "Unhealthy")
        assert "status 503 for /healthz" in condition.message


def test_a_version_that_never_passes_is_given_up_with_what_its_check_said() -> None:
    old = workload(command="old")
    serving = replace(GOOD, template=old.template, id="i-9")
    sick = replace(BAD, reason="ProbeFailed", message="It listens, but its health check says: status 404.")
    now = Moment(START, DOCUMENT.start_timeout + 1)
    seen = replace(view(serving, sick), memory=Memory(old), routed=frozenset({old.template}))
    plan = plan_workload(seen, now)
    ready = find(plan.conditions, ConditionType.READY)
    assert ready is not None
    assert ready.reason == "ProbeFailed"
    assert "status 404" in ready.message
    assert plan.routing is not None
    assert plan.routing.workload == old
    assert [location.address for location in plan.routing.endpoints] == ["10.0.0.1"]
