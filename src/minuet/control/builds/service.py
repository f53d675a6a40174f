"""Use-cases of builds for people and pushes: ask for one, cancel one, keep what is needed. `leases.py` is for builders."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from minuet.control.builds import model, store
from minuet.control.builds.model import AutoDeploy, Build, BuildStatus, Heard, Source
from minuet.control.catalog import store as components
from minuet.control.catalog.model import Component, Project, check_branch, is_touched
from minuet.control.catalog.service import CheckBuild
from minuet.infra.database import Transaction
from minuet.infra.events import Event
from minuet.kernel.clock import Clock
from minuet.kernel.errors import Conflict, Exhausted, NotFound, invalid_field
from minuet.kernel.ids import new_id
from minuet.protocol.building import BuildpackOffer
from minuet.protocol.descriptor import Descriptor
from minuet.render.inputs import ComponentType

QUEUED = "build.queued"
CHANGED = "build.changed"
FINISHED = "build.finished"
BUILDER_REGISTERED = "builder.registered"
"""Events about a build or builder; their subject is its id."""

NO_COMMIT = "0" * 40
"""How git spells "nothing" in a push."""

_COMMIT = frozenset("0123456789abcdef")
_COMMIT_LENGTHS = (40, 64)
"""Digits of a SHA-1 and of a SHA-256 object id. A server gives out whole ids only."""


@dataclass(frozen=True, slots=True)
class Push:
    """What a push changed on one branch of a hosted repository."""

    ref: str
    before: str
    after: str
    changed_paths: tuple[str, ...]
    everything: bool = False


async def create_build(
    tx: Transaction,
    component: Component,
    organization: str,
    *,
    commit: str | None = None,
    branch: str | None = None,
    requested_by: str,
    auto_deploy: bool = False,
    now: datetime.datetime,
) -> Build:
    """Queues a build of a commit, or of the head of a branch; raises `Exhausted` when too many wait."""
    if commit is not None:
        _check_commit(commit)
    if await store.unfinished(tx, component.organization_id) >= model.MAX_QUEUED:
        raise Exhausted(
            f"{model.MAX_QUEUED} builds of the organization wait or run already", hint="wait, or cancel some of them"
        )
    build = Build(
        id=new_id("bld"),
        organization_id=component.organization_id,
        organization=organization,
        project_id=component.project_id,
        project=component.project,
        component_id=component.id,
        component=component.name,
        component_type=component.type,
        number=await store.last_number(tx, component.id) + 1,
        source=_source(component, branch),
        commit=commit,
        commit_message=None,
        commit_author=None,
        status=BuildStatus.QUEUED,
        reason="Queued",
        message="waits for a builder",
        phases=(),
        log_tail=(),
        artifact=None,
        descriptor=Descriptor(),
        warnings=(),
        requested_by=requested_by,
        auto_deploy=AutoDeploy.WANTED if auto_deploy else AutoDeploy.NO,
        attempts=0,
        lease=None,
        builder_id=None,
        cancel_requested=False,
        created_at=now,
        started_at=None,
        finished_at=None,
    )
    await store.insert(tx, build)
    announce(tx, build, QUEUED)
    return build


async def get_build(tx: Transaction, component: Component, name: str) -> Build:
    """Returns a build by what people call it; raises `NotFound`."""
    prefix, _, number = name.rpartition("-")
    if prefix == component.name and number.isascii() and number.isdigit() and len(number) < 10:  # noqa: PLR2004 - fits a column
        found = await store.by_number(tx, component.organization_id, component.id, int(number))
        if found is not None:
            return found
    raise NotFound(
        f"there is no build {name} of {component.name}",
        code="BuildNotFound",
        hint=f"`minuet list builds --project {component.project} --component {component.name}` shows them",
    )


async def cancel_build(tx: Transaction, build: Build, now: datetime.datetime) -> Build:
    """Ends a waiting build at once; asks the builder to end a running one."""
    if build.status.is_final:
        if build.status is BuildStatus.CANCELLED:
            return build
        raise Conflict(f"the build {build.name} has finished: {build.status}", code="BuildFinished")
    if build.status is BuildStatus.QUEUED:
        return await finish(tx, cancelled(build), now)
    asked = replace(build, cancel_requested=True, message="is being cancelled")
    await store.save(tx, asked)
    announce(tx, asked, CHANGED)
    return asked


async def accept_push(
    tx: Transaction, project: Project, organization: str, push: Push, *, pushed_by: str, now: datetime.datetime
) -> list[Build]:
    """Starts a build of each component on that branch of the hosted repository whose directory was touched."""
    branch = push.ref.removeprefix("refs/heads/")
    if branch == push.ref or set(push.after) == {"0"}:
        return []
    _check_commit(push.after)
    is_whole = push.everything or set(push.before) == {"0"}
    builds = []
    for component in await components.hosted_components(tx, project.organization_id, project.id, branch):
        if component.auto_build and (is_whole or is_touched(component.directory, push.changed_paths)):
            build = await create_build(
                tx,
                component,
                organization,
                commit=push.after,
                requested_by=pushed_by,
                auto_deploy=component.auto_deploy,
                now=now,
            )
            builds.append(build)
    return builds


def offer_check(clock: Clock) -> CheckBuild:
    """Returns what catalog calls to learn whether a builder offers what the build configs ask for."""

    async def check(tx: Transaction, kind: ComponentType, configs: Mapping[str, str]) -> None:
        model.check_offer(await offers(tx, clock.now()), kind, configs)

    return check


async def offers(tx: Transaction, now: datetime.datetime) -> tuple[BuildpackOffer, ...]:
    """Returns what all builders that are there together offer."""
    return model.merged_offers(builder for builder in await store.builders(tx) if builder.is_alive(now))


async def heard(tx: Transaction, now: datetime.datetime) -> Heard:
    """Returns whether any builder is there."""
    last = await store.last_heard(tx)
    return Heard(last is not None and now - last < model.BUILDER_ALIVE, last)


async def finish(tx: Transaction, build: Build, now: datetime.datetime) -> Build:
    """Saves the end of a build, tells it, and prunes what is too many now."""
    done = replace(build, finished_at=now)
    await store.save(tx, done)
    announce(tx, done, FINISHED)
    await prune(tx, done.component_id)
    return done


def cancelled(build: Build) -> Build:
    """Returns the build as cancelled."""
    return replace(build, status=BuildStatus.CANCELLED, reason="BuildCancelled", message="was cancelled on request")


async def prune(tx: Transaction, component_id: str) -> int:
    """Removes finished builds that nobody holds, but for the newest few; returns how many."""
    old = await store.prunable(tx, component_id, model.KEEP_UNDEPLOYED)
    if old:
        await store.delete(tx, old)
    return len(old)


def announce(tx: Transaction, build: Build, kind: str) -> None:
    """Tells of a build by the event that readers of its component wait for."""
    data = {"component_id": build.component_id, "status": build.status.value, "name": build.name}
    tx.emit(Event(kind, build.organization_id, build.id, data))


async def builder_url(tx: Transaction) -> str | None:
    """Returns where the hosted repositories are: at the builder heard of last."""
    known: Sequence[model.Builder] = await store.builders(tx)
    return known[0].url.rstrip("/") if known else None


def _source(component: Component, branch: str | None) -> Source:
    return Source(
        repository=component.repository,
        branch=component.branch if branch is None else check_branch(branch),
        directory=component.directory,
        credential=component.credential,
        config=dict(component.build_configs),
        environment=dict(component.build_environment),
    )


def _check_commit(commit: str) -> None:
    if len(commit) not in _COMMIT_LENGTHS or not set(commit) <= _COMMIT:
        raise invalid_field(
            "commit",
            "must be all 40 or 64 hexadecimal digits of a commit, in lower case",
            given=commit,
            hint="`git rev-parse <commit>` tells them; an abbreviated one cannot be fetched",
        )
