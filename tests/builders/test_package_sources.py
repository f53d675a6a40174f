"""What this machine's tools take packages from: asked seldom, and again after a failure."""

from __future__ import annotations

from minuet.builders import package_sources
from minuet.builders.package_sources import kept


def test_an_answer_is_kept_for_an_hour_and_a_failure_is_asked_again() -> None:
    now, said, asked = [0.0], ["", "one", "", "two"], []

    def ask() -> str:
        asked.append(now[0])
        return said.pop(0)

    question = kept(ask, lambda: now[0])

    assert question() == question() == ""
    now[0] = 31.0
    assert question() == "one"
    now[0] = 3000.0
    assert question() == "one"
    now[0] = 4000.0
    assert question() == "one", "a failure does not take the place of an answer"
    now[0] = 4031.0
    assert question() == "two"
    assert asked == [0.0, 31.0, 4000.0, 4031.0]


def test_a_plan_asks_no_tool_that_has_answered(monkeypatch) -> None:
    assert package_sources.hosts() == package_sources.hosts()

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a tool was asked again")

    monkeypatch.setattr(package_sources.subprocess, "run", forbidden)
    package_sources.hosts()
    package_sources.pip_index()
