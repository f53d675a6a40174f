"""The one table from error families to statuses."""

from __future__ import annotations

import pytest

from minuet.kernel import errors
from minuet.web import etags, problems


def test_every_family_has_a_status() -> None:
    assert set(problems.STATUS) == set(errors.FAMILIES)


@pytest.mark.parametrize("family", errors.FAMILIES)
def test_a_problem_tells_family_code_and_hint(family: type[errors.MinuetError]) -> None:
    problem = problems.problem_of(family("what happened", code="SomethingElse", hint="do this"))
    assert (problem.family, problem.code, problem.detail, problem.hint) == (
        family.__name__, "SomethingElse", "what happened", "do this",
    )  # fmt: skip
    assert problem.status == problems.STATUS[family]


def test_a_subclass_has_the_status_of_its_family() -> None:
    class Special(errors.Conflict):
        code = "Special"

    assert problems.status_of(Special("x")) == 409


@pytest.mark.parametrize("given", [None, "*", " * ", '"a", {tag}', "{tag}"])
def test_a_change_goes_through_when_the_tag_still_holds(given: str | None) -> None:
    etags.check(None if given is None else given.format(tag=etags.tag_of("shown")), "shown")


@pytest.mark.parametrize("given", ['"a"', "", 'W/"a"', "nonsense"])
def test_a_change_based_on_something_older_is_a_failed_precondition(given: str) -> None:
    with pytest.raises(errors.Conflict) as caught:
        etags.check(given, "shown")
    assert problems.status_of(caught.value) == 412
