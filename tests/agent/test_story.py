"""What people are told of a workload."""

from __future__ import annotations

from dataclasses import replace

from minuet.agent import story
from minuet.agent.drivers.port import InstanceState
from minuet.agent.model import ArtifactState, Failure, Memory, Moment, View
from minuet.kernel.conditions import Condition, ConditionType, Status
from minuet.kernel.reasons import REASONS
from minuet.protocol.desired import Unreadable
from minuet.protocol.observed import InstancePhase
from tests.given.documents import workload
from tests.given.world import START

NOW = Moment(START, 100.0)
DOCUMENT = workload(replicas=2)
UP = InstanceState("i-0", DOCUMENT.key, DOCUMENT.template, 1, InstancePhase.RUNNING, True, "10.0.0.1")
SICK = replace(UP, id="i-1", ready=False, restarts=4, reason="CrashLoop", message="It ended 4 times.", log_tail=("oh",))


def _view(**changes: object) -> View:
    view = View(DOCUMENT.key, DOCUMENT, False, Memory(DOCUMENT), routed=frozenset({DOCUMENT.template}))
    return replace(view, **changes)  # type: ignore[arg-type]


def _told(conditions: tuple[Condition, ...]) -> dict[str, tuple[Status, str]]:
    assert all(condition.reason in REASONS for condition in conditions)
    return {condition.type.value: (condition.status, condition.reason) for condition in conditions}


def test_a_version_with_every_instance_ready_and_routed_is_ready() -> None:
    told = _told(story.steady(_view(), DOCUMENT, [UP, replace(UP, id="i-1")], NOW))
    assert told["Healthy"] == (Status.TRUE, "Healthy")
    assert told["Routed"] == (Status.TRUE, "Routed")
    assert told["Ready"] == (Status.TRUE, "Ready")


def test_one_sick_instance_is_told_while_the_other_serves() -> None:
    conditions = story.steady(_view(), DOCUMENT, [UP, SICK], NOW)
    told = _told(conditions)
    assert told["Healthy"] == (Status.FALSE, "CrashLoop")
    assert told["Ready"] == (Status.TRUE, "Ready")
    healthy = next(condition for condition in conditions if condition.type is ConditionType.HEALTHY)
    assert "1 of 2" in healthy.message
    assert healthy.log_tail == ("oh",)


def test_when_all_are_sick_it_is_not_ready_for_that_reason() -> None:
    assert _told(story.steady(_view(), DOCUMENT, [SICK], NOW))["Ready"] == (Status.FALSE, "CrashLoop")


def test_ready_is_not_claimed_before_the_routes_are_in_force() -> None:
    told = _told(story.steady(_view(routed=frozenset()), DOCUMENT, [UP], NOW))
    assert told["Routed"] == (Status.FALSE, "Waiting")
    assert told["Ready"] == (Status.FALSE, "Waiting")


def test_without_public_endpoints_there_is_nothing_to_route() -> None:
    inner = workload(routes=())
    told = _told(story.steady(_view(desired=inner, routed=frozenset()), inner, [UP], NOW))
    assert (told["Routed"], told["Ready"]) == ((Status.TRUE, "NotRouted"), (Status.TRUE, "Ready"))


def test_suspended_is_told_once_nothing_runs() -> None:
    none = workload(replicas=0)
    assert _told(story.steady(_view(), none, [UP], NOW)) == {"Ready": (Status.FALSE, "Waiting")}
    assert _told(story.steady(_view(), none, [], NOW)) == {"Ready": (Status.FALSE, "Suspended")}


def test_an_artifact_that_does_not_come_is_told_with_its_reason() -> None:
    lost = {DOCUMENT.artifact.digest: ArtifactState(reason="ArtifactUnavailable", message="no answer")}
    told = _told(story.rollout(_view(artifacts=lost), DOCUMENT, [], Memory(), NOW))
    assert told["Fetched"] == (Status.FALSE, "ArtifactUnavailable")
    assert told["Ready"] == (Status.FALSE, "Waiting")


def test_a_version_on_its_way_is_starting_and_not_failed() -> None:
    told = _told(story.rollout(_view(), DOCUMENT, [SICK], Memory(), NOW))
    assert told["Healthy"] == (Status.FALSE, "Starting")
    assert told["Ready"] == (Status.FALSE, "Starting")


def test_a_given_up_version_says_why_with_its_last_lines() -> None:
    failure = Failure(1, "ExitedAtOnce", "It exited with 3.", ("last",))
    ready = story.rollout(_view(), DOCUMENT, [], Memory(None, failure), NOW)[-1]
    assert (ready.reason, ready.message, ready.log_tail) == ("ExitedAtOnce", "It exited with 3.", ("last",))


def test_routes_that_the_gateway_refused_are_false_and_unconfirmed_ones_unknown() -> None:
    steady = story.steady(_view(), DOCUMENT, [UP], NOW)
    refused = _told(story.unrouted(steady, DOCUMENT, refused=True, message="no", now=NOW))
    silent = _told(story.unrouted(steady, DOCUMENT, refused=False, message="no", now=NOW))
    assert refused["Ready"] == refused["Routed"] == (Status.FALSE, "GatewayRejected")
    assert silent["Ready"] == silent["Routed"] == (Status.UNKNOWN, "Waiting")
    assert refused["Healthy"] == _told(steady)["Healthy"]


def test_a_document_that_cannot_be_read_is_told_with_the_field() -> None:
    told = story.unreadable(Unreadable(key="c/e", generation=7, body="{}", problem="command: missing"), START)
    assert (told.generation, told.reason) == (7, "DesiredStateInvalid")
    assert "command: missing" in told.message
