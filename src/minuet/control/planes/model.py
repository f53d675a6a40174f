"""Data planes, environments and pipelines as values, and what may be said of a plane's link."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace

from minuet.kernel.conditions import Condition, ConditionType, Status

DEFAULT_PLANE = "default"
DEFAULT_PIPELINE = "default"
DEFAULT_ENVIRONMENTS = (("development", "Development", False), ("production", "Production", True))
"""Name, display name and whether it is critical, of what every organization starts with."""

LOST_AFTER = datetime.timedelta(seconds=90)
"""A replica that has not renewed the links it holds for so long is gone, and its links with it."""


@dataclass(frozen=True, slots=True)
class DataPlane:
    """Where workloads run. Without `organization_id` it is shared by all organizations.

    `session` fences links; `acknowledged_*` is what the agent holds on its disk;
    `trouble` says why it does not take what it is sent, with `trouble_reason` of
    the catalogue. `diverged_epoch` is set while the agent holds another history
    than ours, up to that epoch: then nothing is sent until a new epoch begins.
    """

    id: str
    organization_id: str | None
    name: str
    domain: str
    epoch: int
    revision: int
    session: int
    sealing_key: str | None
    connected: bool
    since: datetime.datetime
    last_seen: datetime.datetime | None
    isolation: str
    gateway_url: str
    gateway_ready: bool
    agent_version: str
    warnings: tuple[str, ...]
    acknowledged_epoch: int
    acknowledged_revision: int
    trouble: str | None
    trouble_reason: str | None
    diverged_epoch: int | None
    created_at: datetime.datetime

    @property
    def is_diverged(self) -> bool:
        """Whether the agent's log is another one than ours, as after a restore of the control plane."""
        return self.diverged_epoch is not None

    def is_connected(self, now: datetime.datetime) -> bool:
        """Whether a link is up, as far as anybody can know."""
        return self.connected and self.last_seen is not None and now - self.last_seen < LOST_AFTER

    def unknown_since(self, now: datetime.datetime) -> datetime.datetime | None:
        """Since when nothing is known of what runs there; nothing while the link is up."""
        if self.is_connected(now):
            return None
        return self.last_seen or self.since

    @property
    def told_warnings(self) -> tuple[str, ...]:
        """What everybody may know of its warnings: those of a shared plane name workloads of others."""
        if self.organization_id is not None or not self.warnings:
            return self.warnings
        return (f"the data plane has {len(self.warnings)} warnings, which its operators see",)

    @property
    def told_trouble(self) -> str | None:
        """What everybody may know of its trouble: that of a shared plane names workloads of others."""
        if self.organization_id is not None or self.trouble is None:
            return self.trouble
        return "the data plane could not take what it was sent; its operators see why"

    def conditions(self, now: datetime.datetime, *, in_full: bool) -> tuple[Condition, ...]:
        """What can be said of it: whether it is connected, and whether it has what was asked for.

        Only `in_full` with what tells of others on a shared plane: revisions, sessions, the agent's own words.
        """
        lost = self.unknown_since(now)
        if lost is not None:
            message = "the data plane's agent is not connected" if self.last_seen else "no agent has connected yet"
            generation = self.revision if in_full else 0
            return (Condition(ConditionType.CONNECTED, Status.UNKNOWN, "PlaneUnreachable", message, generation, lost),)
        told = (self._connected(), self._delivered())
        return told if in_full else tuple(self._neutral(condition) for condition in told)

    def _connected(self) -> Condition:
        message = f"session {self.session}, agent {self.agent_version}"
        return Condition(ConditionType.CONNECTED, Status.TRUE, "Ready", message, self.revision, self.since)

    def _delivered(self) -> Condition:
        kind, since = ConditionType.DELIVERED, self.since
        if self.trouble is not None:
            reason = self.trouble_reason or "DesiredStateInvalid"
            return Condition(kind, Status.FALSE, reason, self.trouble, self.revision, since)
        held = (self.acknowledged_epoch, self.acknowledged_revision)
        if held == (self.epoch, self.revision):
            return Condition(kind, Status.TRUE, "Delivered", f"holds revision {held[1]}", self.revision, since)
        message = f"holds revision {held[1]} of {self.revision}"
        return Condition(kind, Status.FALSE, "Waiting", message, self.revision, since)

    def _neutral(self, condition: Condition) -> Condition:
        known = {
            "Ready": f"agent {self.agent_version}",
            "Delivered": "holds all that was asked for",
            "Waiting": "does not hold all that was asked for yet",
        }
        return replace(condition, message=known.get(condition.reason, self.told_trouble or ""), generation=0)


@dataclass(frozen=True, slots=True)
class Environment:
    """A stage of an organization on one data plane. Critical ones ask before what cannot be undone."""

    id: str
    organization_id: str
    name: str
    display_name: str
    plane_id: str
    plane: str
    critical: bool
    created_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The environments that a release passes through, in order, by name."""

    id: str
    organization_id: str
    name: str
    display_name: str
    environments: tuple[str, ...]
    created_at: datetime.datetime

    def before(self, environment: str) -> str | None:
        """Returns the environment a release must have been ready in before this one."""
        position = self.environments.index(environment)
        return self.environments[position - 1] if position else None
