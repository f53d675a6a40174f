"""Builds and builders as values: states, what may be said of them, and which offers fit a component."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from minuet.kernel.clock import rfc3339
from minuet.kernel.conditions import Condition, ConditionType, Status
from minuet.kernel.errors import Invalid, NotReady, Violation, invalid_field
from minuet.kernel.names import nearest
from minuet.protocol.building import BuildpackOffer, BuiltArtifact, Phase
from minuet.protocol.descriptor import Descriptor
from minuet.render.inputs import ComponentType

MAX_QUEUED = 100
"""Builds of one organization that wait or run; more are refused."""

MAX_ATTEMPTS = 3
"""Builders that may get lost under one build before it fails with `BuilderLost`."""

KEEP_UNDEPLOYED = 5
"""Finished builds of a component that stay although nothing holds them; older ones go."""

LEASE_SECONDS = 30.0
"""How long a builder may be silent before its build goes back to the queue."""

BUILDER_ALIVE = datetime.timedelta(seconds=60)
"""A builder that was silent for longer offers nothing: it asks for work or reports at least every 25 s."""

MAX_LOG_TAIL = 50
MAX_LINE = 2000


class BuildStatus(enum.StrEnum):
    """Where a build stands."""

    QUEUED = "Queued"
    BUILDING = "Building"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def is_final(self) -> bool:
        """Whether it will never change again."""
        return self not in (BuildStatus.QUEUED, BuildStatus.BUILDING)


class AutoDeploy(enum.StrEnum):
    """What is still to happen once the build has succeeded."""

    NO = "no"
    WANTED = "wanted"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Source:
    """What is built and how, fixed when the build was asked for."""

    repository: str | None
    branch: str
    directory: str
    credential: str | None
    config: Mapping[str, str]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Lease:
    """Who works on a build. `until` moves with each sign of life, which is how a renewal is seen."""

    id: str
    builder_id: str
    incarnation: str
    until: datetime.datetime


@dataclass(frozen=True, slots=True)
class Build:
    """One build of one commit. `name` is what people call it: `<component>-<n>`."""

    id: str
    organization_id: str
    organization: str
    project_id: str
    project: str
    component_id: str
    component: str
    component_type: ComponentType
    number: int
    source: Source
    commit: str | None
    commit_message: str | None
    commit_author: str | None
    status: BuildStatus
    reason: str
    message: str
    phases: tuple[Phase, ...]
    log_tail: tuple[str, ...]
    artifact: BuiltArtifact | None
    descriptor: Descriptor
    warnings: tuple[str, ...]
    requested_by: str
    auto_deploy: AutoDeploy
    attempts: int
    lease: Lease | None
    builder_id: str | None
    cancel_requested: bool
    created_at: datetime.datetime
    started_at: datetime.datetime | None
    finished_at: datetime.datetime | None

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.component}-{self.number}"

    def conditions(self, heard: Heard) -> tuple[Condition, ...]:
        """The one condition of a build: whether it succeeded."""
        status = {BuildStatus.SUCCEEDED: Status.TRUE, BuildStatus.QUEUED: Status.UNKNOWN}.get(self.status)
        if status is None:
            status = Status.UNKNOWN if self.status is BuildStatus.BUILDING else Status.FALSE
        since = self.finished_at or self.started_at or self.created_at
        tail = self.log_tail if status is Status.FALSE else ()
        message = self.told(heard)
        return (Condition(ConditionType.SUCCEEDED, status, self.reason, message, self.number, since, tail),)

    def told(self, heard: Heard) -> str:
        """Returns what is to be said of it: while it waits, also that nobody is there to take it."""
        if self.status is not BuildStatus.QUEUED or heard.is_alive:
            return self.message
        silence = (
            "no builder has registered yet"
            if heard.last is None
            else f"no builder heard of since {rfc3339(heard.last)}"
        )
        return f"{self.message}; {silence}"


@dataclass(frozen=True, slots=True)
class Builder:
    """A builder since its last start: where it is, what it signs with, what it can build."""

    id: str
    name: str
    incarnation: str
    version: str
    url: str
    fingerprint: str | None
    public_key: str
    isolation: str
    offers: tuple[BuildpackOffer, ...]
    registered_at: datetime.datetime
    seen_at: datetime.datetime = field(compare=False)

    def is_alive(self, now: datetime.datetime) -> bool:
        """Whether it was heard of lately."""
        return now - self.seen_at < BUILDER_ALIVE


@dataclass(frozen=True, slots=True)
class Heard:
    """Whether any builder is there, and when the last one was heard of; nothing before the first registration."""

    is_alive: bool
    last: datetime.datetime | None = None


def merged_offers(builders: Iterable[Builder]) -> tuple[BuildpackOffer, ...]:
    """Returns what all builders together offer: per buildpack and component types, every version once."""
    merged: dict[tuple[str, tuple[str, ...]], BuildpackOffer] = {}
    for builder in builders:
        for offer in builder.offers:
            key = (offer.name, offer.component_types)
            known = merged.get(key)
            if known is None:
                merged[key] = offer
                continue
            versions = tuple(dict.fromkeys((*known.versions, *offer.versions)))
            merged[key] = known.model_copy(update={"versions": versions})
    return tuple(merged[key] for key in sorted(merged))


def check_offer(offers: Iterable[BuildpackOffer], kind: ComponentType, configs: Mapping[str, str]) -> None:
    """Raises `Invalid` naming what is on offer when the build configs ask for something else.

    Without a buildpack in the configs the builder detects one, so nothing can be said yet.
    """
    name = configs.get("buildpack")
    if name is None:
        return
    known = tuple(offers)
    if not known:
        raise NotReady(
            "no builder is there, so nobody knows which buildpacks there are",
            code="NoBuilder",
            hint="`minuet status` shows whether the builder runs; try again when it does",
        )
    fitting = [offer for offer in known if kind.value in offer.component_types]
    offer = next((offer for offer in fitting if offer.name == name), None)
    if offer is None:
        names = tuple(dict.fromkeys(offer.name for offer in fitting))
        close = nearest(name, names)
        hint = f"did you mean {close}?" if close else f"for the type {kind} there are: {', '.join(names)}"
        raise invalid_field("buildConfigs.buildpack", "is not on offer", given=name, allowed=names, hint=hint)
    _check_required(offer, kind, configs)
    _check_version(offer, configs)


def _check_required(offer: BuildpackOffer, kind: ComponentType, configs: Mapping[str, str]) -> None:
    missing = [key for key in offer.required if not configs.get(key)]
    if missing:
        raise Invalid(
            f"buildConfigs: the buildpack {offer.name} needs {', '.join(missing)} for the type {kind}",
            hint=_versions_hint(offer) if "buildPackLangVersion" in missing else None,
            violations=[Violation(f"buildConfigs.{key}", "is required") for key in missing],
        )


def _check_version(offer: BuildpackOffer, configs: Mapping[str, str]) -> None:
    for key in ("buildPackLangVersion", "nodeVersion"):
        version = configs.get(key)
        if version is None or (key == "nodeVersion" and "buildPackLangVersion" in configs) or not offer.versions:
            continue
        if not any(is_version(version, offered) for offered in offer.versions):
            raise invalid_field(
                f"buildConfigs.{key}",
                "is not on offer",
                given=version,
                allowed=offer.versions,
                hint=_versions_hint(offer),
            )


def is_version(asked: str, offered: str) -> bool:
    """Whether an offered version is one of those asked for: `3.11`, `3.11.x` and `3.11.4` all fit an offered `3.11`."""
    left, right = asked.removesuffix(".x").split("."), offered.removesuffix(".x").split(".")
    shorter = min(len(left), len(right))
    return left[:shorter] == right[:shorter]


def _versions_hint(offer: BuildpackOffer) -> str | None:
    return f"{offer.name} has: {', '.join(offer.versions)}" if offer.versions else None


def bounded_lines(lines: Iterable[str]) -> tuple[str, ...]:
    """Returns the last lines, each cut to a bounded length."""
    return tuple(line[:MAX_LINE] for line in list(lines)[-MAX_LOG_TAIL:])
