"""Observed state: what the agent saw, never what it hopes."""

from __future__ import annotations

import datetime
import enum

from minuet.kernel.conditions import Condition, ConditionType, Status
from minuet.protocol.base import Document


class InstancePhase(enum.StrEnum):
    """Where one instance stands. `Backoff` waits to be started again."""

    STARTING = "Starting"
    RUNNING = "Running"
    BACKOFF = "Backoff"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    FAILED = "Failed"


class ObservedInstance(Document):
    """One instance as its driver sees it."""

    id: str
    template: str
    generation: int
    phase: InstancePhase
    ready: bool
    restarts: int = 0
    started_at: datetime.datetime | None = None
    exit_code: int | None = None
    reason: str | None = None
    message: str | None = None
    address: str | None = None
    isolation: str = ""


class ObservedCondition(Document):
    """A condition on the wire."""

    type: ConditionType
    status: Status
    reason: str
    message: str
    since: datetime.datetime
    log_tail: tuple[str, ...] = ()

    def at(self, generation: int) -> Condition:
        """Returns the kernel's condition for a generation."""
        return Condition(self.type, self.status, self.reason, self.message, generation, self.since, self.log_tail)


class ObservedWorkload(Document):
    """One workload: the generation spoken of, the one that serves, and its instances.

    `serving_generation` stays at the old deployment while a new one has not
    become healthy; `removed` reports a finished tombstone.
    """

    key: str
    generation: int
    serving_generation: int | None = None
    serving_release: str | None = None
    conditions: tuple[ObservedCondition, ...] = ()
    instances: tuple[ObservedInstance, ...] = ()
    removed: bool = False


class PlaneReport(Document):
    """What the agent says of its host: class of isolation, gateway, capacity."""

    isolation: str
    gateway_ready: bool
    gateway_url: str
    agent_version: str
    warnings: tuple[str, ...] = ()
