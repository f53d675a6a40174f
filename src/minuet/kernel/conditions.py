"""How everything asynchronous tells its state.

A condition has a type, a status, a reason from the catalogue below, a message a
person can act on, and the generation it speaks of. Unknown means "not observed",
never "failed"; a status never claims more than was seen.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace


class Status(enum.StrEnum):
    """Three-valued truth."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionType(enum.StrEnum):
    """What a condition is about. Builds use `Succeeded`; deployments use the rest."""

    SUCCEEDED = "Succeeded"
    ACCEPTED = "Accepted"
    DELIVERED = "Delivered"
    FETCHED = "Fetched"
    STARTED = "Started"
    HEALTHY = "Healthy"
    ROUTED = "Routed"
    READY = "Ready"
    IN_FORCE = "InForce"
    CONNECTED = "Connected"


@dataclass(frozen=True, slots=True)
class Condition:
    """One statement about one generation of one thing."""

    type: ConditionType
    status: Status
    reason: str
    message: str
    generation: int
    since: datetime.datetime
    log_tail: tuple[str, ...] = ()


def merge(existing: Iterable[Condition], news: Iterable[Condition]) -> tuple[Condition, ...]:
    """Updates conditions by type.

    `since` moves only when the status changed; news about an older generation
    than the one already spoken of is dropped.
    """
    merged = {condition.type: condition for condition in existing}
    for fresh in news:
        known = merged.get(fresh.type)
        if known and fresh.generation < known.generation:
            continue
        same = known is not None and (known.status, known.generation) == (fresh.status, fresh.generation)
        merged[fresh.type] = replace(fresh, since=known.since) if known and same else fresh
    return tuple(merged[kind] for kind in ConditionType if kind in merged)


def find(conditions: Iterable[Condition], kind: ConditionType) -> Condition | None:
    """Returns the condition of that type, if there is one."""
    return next((condition for condition in conditions if condition.type is kind), None)
