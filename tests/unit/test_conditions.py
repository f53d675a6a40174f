"""Conditions: merging news, and the catalogue of reasons."""

import datetime
import re
from pathlib import Path

import minuet
from minuet.kernel.conditions import Condition, ConditionType, Status, find, merge
from minuet.kernel.reasons import REASONS

EARLY = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
LATE = EARLY + datetime.timedelta(minutes=5)


def ready(status: Status, generation: int, since: datetime.datetime, reason: str = "Ready") -> Condition:
    return Condition(ConditionType.READY, status, reason, "", generation, since)


def test_since_stays_when_only_the_message_changed() -> None:
    merged = merge([ready(Status.TRUE, 1, EARLY)], [ready(Status.TRUE, 1, LATE)])
    assert merged[0].since == EARLY


def test_since_moves_with_the_status() -> None:
    merged = merge([ready(Status.TRUE, 1, EARLY)], [ready(Status.FALSE, 1, LATE, "Unhealthy")])
    assert merged[0].since == LATE


def test_news_about_an_older_generation_is_dropped() -> None:
    merged = merge([ready(Status.FALSE, 2, EARLY, "Starting")], [ready(Status.TRUE, 1, LATE)])
    assert find(merged, ConditionType.READY) == ready(Status.FALSE, 2, EARLY, "Starting")


def test_every_reason_tells_what_to_do_next() -> None:
    assert all(reason.meaning.endswith(".") and reason.next_step for reason in REASONS.values())


def test_every_reason_is_a_camel_case_word() -> None:
    assert all(re.fullmatch(r"[A-Z][A-Za-z]+", name) for name in REASONS)


def test_every_reason_of_the_catalogue_is_used_somewhere() -> None:
    source = "\n".join(
        path.read_text() for path in Path(minuet.__file__).parent.rglob("*.py") if path.name != "reasons.py"
    )
    unused = [name for name in REASONS if not re.search(rf'["\']{name}["\']', source)]
    assert unused == []
