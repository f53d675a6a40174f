"""Use-cases of deployments: deploy, promote, roll back, redeploy, scale, suspend, resume, configure, undeploy.

Each makes one new immutable deployment (or, for undeploy, a removal) and makes
it the target's current one. The controller hands it to the data plane.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace

from minuet.control.builds import store as builds
from minuet.control.builds.model import Build, BuildStatus
from minuet.control.catalog import store as catalog
from minuet.control.catalog.model import Component, Hold, Lifecycle
from minuet.control.configuration import service as configuration
from minuet.control.delivery import inputs, model, store
from minuet.control.delivery.model import Action, Deployment, Release, State, Target
from minuet.control.planes import service as planes_service
from minuet.control.planes import store as planes
from minuet.control.planes.model import DEFAULT_PIPELINE, DataPlane, Environment, Pipeline
from minuet.infra.database import Transaction
from minuet.infra.events import Event
from minuet.kernel.errors import Conflict, NotFound, NotReady, invalid_field
from minuet.kernel.ids import new_id
from minuet.render import workload

REQUESTED = "deployment.requested"
CHANGED = "environment.changed"
"""Events about a component in an environment; their subject is the component's id."""

MAX_PIPELINES = 50


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for what to change where, and when."""

    organization: str
    component: Component
    environment: Environment
    requested_by: str
    now: datetime.datetime


@dataclass(frozen=True, slots=True)
class Content:
    """What a new deployment is to run."""

    release: Release
    config_revision: int
    replicas: int
    state: State = State.ACTIVE
    restart: str = ""
    origin: int | None = None


async def deploy(
    tx: Transaction,
    request: Request,
    *,
    build: str | None = None,
    release: str | None = None,
    replicas: int | None = None,
) -> Deployment:
    """Deploys a build or release, the newest build without either; into a later environment that is a promotion.

    Raises `NotReady` while there is nothing to deploy, `Conflict` (`NotPromotable`)
    for a release that was not ready in the environment before, `Invalid` for
    configuration that is missing.
    """
    if build is not None and release is not None:
        raise invalid_field("release", "cannot be given together with build")
    target = await _target(tx, request)
    chosen = await _chosen(tx, request, build, release)
    before = await _stage_before(tx, request.environment)
    if before is not None:
        await _check_proven(tx, request, chosen, before)
    made = await _release(tx, request, chosen)
    current = await _current(tx, target)
    wanted = replicas if replicas is not None else max(1, current.replicas if current else 1)
    revision = (await configuration.current(tx, request.component, request.environment)).revision
    content = Content(made, revision, _check_replicas(wanted), _state(wanted))
    return await _record(tx, request, target, content, Action.DEPLOY if before is None else Action.PROMOTE)


async def rollback(tx: Transaction, request: Request, to: str | None = None) -> Deployment:
    """Goes back to the last good deployment, or to the one named, with its configuration and endpoints."""
    target, current = await _deployed(tx, request)
    history = await store.history(tx, target)
    found = model.rollback_target(history, current) if to is None else _named(history, to)
    if found is None:
        where = request.environment.name
        if to is not None:
            raise NotFound(
                f"{to} was never deployed to {where}",
                code="DeploymentNotFound",
                hint=f"`{_listing(request)}` shows what was",
            )
        raise Conflict(
            f"there is no earlier deployment in {where} that was ready",
            code="NothingToRollBackTo",
            hint=f"`{_listing(request)}` shows what was deployed there",
        )
    release = await store.release_by_name(tx, target.organization_id, target.component_id, found.release)
    if release is None:
        raise NotFound(f"there is no release {found.release} any more", code="ReleaseNotFound")
    replicas = max(1, current.replicas)
    content = Content(release, found.config_revision, replicas, restart=found.restart, origin=found.origin)
    return await _record(tx, request, target, content, Action.ROLLBACK)


async def redeploy(tx: Transaction, request: Request) -> Deployment:
    """Starts the current release afresh, with the newest configuration."""
    target, current = await _deployed(tx, request)
    _must_run(request, current)
    newest = (await configuration.current(tx, request.component, request.environment)).revision
    content = replace(await _content(tx, current), config_revision=newest, restart=new_id("rst"))
    if newest != current.config_revision:
        content = replace(content, origin=None)
    return await _record(tx, request, target, content, Action.REDEPLOY)


async def scale(tx: Transaction, request: Request, replicas: int) -> Deployment:
    """Changes how many instances run; 0 suspends."""
    target, current = await _deployed(tx, request)
    _must_run(request, current)
    content = await _content(tx, current)
    return await _record(
        tx, request, target, replace(content, replicas=_check_replicas(replicas), state=_state(replicas)), Action.SCALE
    )


async def suspend(tx: Transaction, request: Request) -> Deployment:
    """Stops everything of it; its address answers 503 until it is resumed."""
    target, current = await _deployed(tx, request)
    if current.state is State.SUSPENDED:
        raise Conflict("it is suspended already", code="AlreadySuspended")
    content = replace(await _content(tx, current), state=State.SUSPENDED)
    return await _record(tx, request, target, content, Action.SUSPEND)


async def resume(tx: Transaction, request: Request) -> Deployment:
    """Starts again what was suspended, as it was."""
    target, current = await _deployed(tx, request)
    if current.state is not State.SUSPENDED:
        raise Conflict("it is not suspended", code="NotSuspended")
    content = replace(await _content(tx, current), state=State.ACTIVE, replicas=max(1, current.replicas))
    return await _record(tx, request, target, content, Action.RESUME)


async def configure(tx: Transaction, request: Request) -> Deployment | None:
    """Brings the newest configuration into force where something is deployed; returns None where nothing is."""
    target = await _target(tx, request)
    current = await _current(tx, target)
    if current is None:
        return None
    newest = (await configuration.current(tx, request.component, request.environment)).revision
    content = replace(await _content(tx, current), config_revision=newest, origin=None)
    return await _record(tx, request, target, content, Action.CONFIGURE)


async def undeploy(tx: Transaction, target: Target, *, confirmed_by: str, now: datetime.datetime) -> None:
    """Removes a component from an environment; repeating it changes nothing."""
    current = await _current(tx, target)
    if current is None:
        return
    await _close(tx, target, current, now)
    removed = replace(target, current_id=None, removed_by=confirmed_by[:300], trouble=None, updated_at=now)
    await store.put_target(tx, removed)
    announce(tx, target, REQUESTED)


async def get_target(tx: Transaction, request: Request) -> Target:
    """Returns what is known of a component in an environment; raises `NotFound` when it was never deployed there."""
    component, environment = request.component, request.environment
    found = await store.target(tx, component.organization_id, component.id, environment.id)
    if found is None:
        raise _not_deployed(component, environment)
    return found


async def get_deployment(tx: Transaction, component: Component, name: str) -> Deployment:
    """Returns a deployment; raises `NotFound`."""
    found = await store.deployment_by_name(tx, component.organization_id, component.id, name)
    if found is None:
        raise NotFound(f"there is no deployment {name} of {component.name}", code="DeploymentNotFound")
    return found


async def view_of(tx: Transaction, plane_id: str, now: datetime.datetime) -> tuple[DataPlane, model.PlaneView]:
    """Returns a plane, and what the state machine has to know of it."""
    plane = await planes.plane_by_id(tx, plane_id)
    if plane is None:
        raise NotFound("there is no such data plane", code="DataPlaneNotFound")
    acknowledged = (plane.acknowledged_epoch, plane.acknowledged_revision)
    trouble = (plane.told_trouble, plane.trouble_reason, plane.is_diverged)
    return plane, model.PlaneView(plane.unknown_since(now), acknowledged, *trouble)


def announce(tx: Transaction, target: Target, kind: str) -> None:
    """Tells of a target by the event that its readers wait for."""
    tx.emit(Event(kind, target.organization_id, target.component_id, {"environment_id": target.environment_id}))


async def _record(tx: Transaction, request: Request, target: Target, content: Content, action: Action) -> Deployment:
    """Checks that it fits, adds the deployment, makes it current, and closes the one before."""
    await _check_fits(tx, request, content)
    if target.appended_id is None:
        await planes_service.check_share(tx, target.plane_id, target.organization_id)
    generation = target.generation + 1
    count = await store.last_count(tx, target.component_id, content.release.id) + 1
    deployment = Deployment(
        id=new_id("dep"),
        organization_id=target.organization_id,
        project_id=target.project_id,
        component_id=target.component_id,
        environment_id=target.environment_id,
        name=f"{content.release.name}.{content.config_revision}.{count}",
        generation=generation,
        origin=generation if content.origin is None else content.origin,
        release_id=content.release.id,
        release=content.release.name,
        build_id=content.release.build_id,
        build=content.release.build,
        config_revision=content.config_revision,
        replicas=content.replicas,
        state=content.state,
        action=action,
        restart=content.restart,
        requested_by=request.requested_by,
        created_at=request.now,
    )
    current = await _current(tx, target)
    if current is not None:
        await _close(tx, target, current, request.now)
    await store.insert_deployment(tx, deployment, count)
    changed = replace(
        target,
        current_id=deployment.id,
        generation=generation,
        removed_by=None,
        trouble=None,
        updated_at=request.now,
    )
    await store.put_target(tx, changed)
    await _hold(tx, request, content.release)
    await _forget_old(tx, changed)
    announce(tx, changed, REQUESTED)
    return deployment


async def _check_fits(tx: Transaction, request: Request, content: Content) -> None:
    build = await builds.by_id(tx, request.component.organization_id, content.release.build_id)
    if build is None:
        raise NotFound(f"the build of {content.release.name} is gone", code="BuildNotFound")
    builder = await builds.builder(tx, build.builder_id or "")
    plane = await planes.plane_by_id(tx, request.environment.plane_id)
    if builder is None or plane is None:
        raise NotReady("the builder or the data plane is not known any more", code="BuilderNotRegistered")
    chosen = await configuration.at_revision(tx, request.component, request.environment.id, content.config_revision)
    place = inputs.place(request.organization, request.component, request.environment, plane)
    entries = [entry.entry() for entry in chosen.entries]
    workload.check(inputs.built(build, builder, ""), place, entries, chosen.health)


async def _close(tx: Transaction, target: Target, current: Deployment, now: datetime.datetime) -> None:
    _, view = await view_of(tx, target.plane_id, now)
    await store.close(tx, current, model.conditions(current, target, view))


async def _hold(tx: Transaction, request: Request, release: Release) -> None:
    organization_id = request.component.organization_id
    await catalog.put_hold(tx, organization_id, Hold(release.build_id, model.BUILD_HOLDER, f"release {release.name}"))
    reason = f"it runs in {request.environment.name}"
    await catalog.put_hold(tx, organization_id, Hold(request.component.id, holder_of(request.environment.id), reason))


async def _forget_old(tx: Transaction, target: Target) -> None:
    for _, build_id in await store.prune_history(tx, target, model.MAX_HISTORY):
        await catalog.release_hold(tx, target.organization_id, build_id, model.BUILD_HOLDER)


async def users_of_environment(tx: Transaction, environment: Environment) -> list[str]:
    """Names what runs in an environment or is still being removed from it."""
    return await store.components_in(tx, environment.organization_id, environment.id)


async def forget_environment(tx: Transaction, environment: Environment) -> None:
    """Forgets the history of an environment that goes, and lets go the builds that were kept for it only."""
    for _, build_id in await store.forget_environment(tx, environment.organization_id, environment.id):
        await catalog.release_hold(tx, environment.organization_id, build_id, "delivery")


def holder_of(environment_id: str) -> str:
    """Returns how an environment signs its hold on a component."""
    return f"delivery/{environment_id}"


async def _target(tx: Transaction, request: Request) -> Target:
    """Returns the target, a new one if nothing was ever deployed there."""
    component, environment = request.component, request.environment
    if component.state is Lifecycle.DELETING:
        raise Conflict(f"the component {component.name} is being deleted", code="BeingDeleted")
    found = await store.target(tx, component.organization_id, component.id, environment.id)
    return found or Target(
        organization_id=component.organization_id,
        project_id=component.project_id,
        component_id=component.id,
        environment_id=environment.id,
        plane_id=environment.plane_id,
        current_id=None,
        generation=0,
        removed_by=None,
        appended_id=None,
        appended_hash=None,
        appended_epoch=0,
        appended_revision=0,
        addresses=(),
        not_in_force=(),
        trouble=None,
        observed=None,
        observed_at=None,
        updated_at=request.now,
    )


async def _current(tx: Transaction, target: Target) -> Deployment | None:
    if target.current_id is None:
        return None
    return await store.deployment_by_id(tx, target.organization_id, target.current_id)


async def _deployed(tx: Transaction, request: Request) -> tuple[Target, Deployment]:
    target = await _target(tx, request)
    current = await _current(tx, target)
    if current is None:
        raise _not_deployed(request.component, request.environment)
    return target, current


def _not_deployed(component: Component, environment: Environment) -> NotFound:
    return NotFound(
        f"{component.name} is not deployed to {environment.name}",
        code="NotDeployed",
        hint=f"`minuet create deployment {_words(component, environment)}` deploys it",
    )


def _words(component: Component, environment: Environment) -> str:
    """How a command names a component in an environment, so that it can be pasted anywhere."""
    return f"{component.name} --project {component.project} --env {environment.name}"


def _listing(request: Request) -> str:
    component, environment = request.component, request.environment
    return (
        f"minuet list deployments --component {component.name} --project {component.project} --env {environment.name}"
    )


def _must_run(request: Request, current: Deployment) -> None:
    if current.state is State.SUSPENDED:
        words = _words(request.component, request.environment)
        raise Conflict("it is suspended", code="Suspended", hint=f"`minuet resume {words}` starts it again")


async def _content(tx: Transaction, current: Deployment) -> Content:
    """What the current deployment runs, to be changed in one respect."""
    release = await store.release_by_name(tx, current.organization_id, current.component_id, current.release)
    if release is None:
        raise NotFound(f"there is no release {current.release} any more", code="ReleaseNotFound")
    return Content(release, current.config_revision, current.replicas, current.state, current.restart, current.origin)


def _check_replicas(replicas: int) -> int:
    if not 0 <= replicas <= model.MAX_REPLICAS:
        raise invalid_field("replicas", f"must be 0 to {model.MAX_REPLICAS}", given=replicas)
    return replicas


def _state(replicas: int) -> State:
    return State.SUSPENDED if replicas == 0 else State.ACTIVE


def _named(history: list[Deployment], name: str) -> Deployment | None:
    """Returns the deployment of that name, or the newest of that release, a good one first."""
    fitting = [item for item in history if name in (item.name, item.release)]
    return next((item for item in fitting if item.ready_at is not None), fitting[0] if fitting else None)


async def _chosen(tx: Transaction, request: Request, build: str | None, release: str | None) -> Build:
    component = request.component
    if release is not None:
        named = await store.release_by_name(tx, component.organization_id, component.id, release)
        found = None if named is None else await builds.by_id(tx, component.organization_id, named.build_id)
        if found is None:
            raise NotFound(f"there is no release {release} of {component.name}", code="ReleaseNotFound")
        return found
    if build is not None:
        number = build.removeprefix(f"{component.name}-")
        found = None
        if number.isascii() and number.isdigit() and len(number) < 10:  # noqa: PLR2004 - fits a column
            found = await builds.by_number(tx, component.organization_id, component.id, int(number))
        if found is None:
            raise NotFound(f"there is no build {build} of {component.name}", code="BuildNotFound")
        return _deployable(found)
    newest = await builds.newest_succeeded(tx, component.organization_id, component.id)
    if newest is None:
        raise NotReady(
            f"{component.name} has no build that succeeded",
            code="NothingBuilt",
            hint=f"`minuet create build {component.name} --project {component.project}` makes one",
        )
    return newest


def _deployable(build: Build) -> Build:
    if build.status is BuildStatus.SUCCEEDED:
        return build
    if not build.status.is_final:
        raise NotReady(f"the build {build.name} is {build.status}", code="BuildNotFinished", hint=_wait(build))
    raise Conflict(
        f"the build {build.name} is {build.status}: {build.message}",
        code="BuildNotDeployable",
        hint=f"`minuet list builds --project {build.project} --component {build.component}` shows others",
    )


def _wait(build: Build) -> str:
    return f"`minuet wait build {build.name} --project {build.project}` waits for it"


async def _stage_before(tx: Transaction, environment: Environment) -> str | None:
    """Returns the environment that a release must have been ready in, by the pipeline the environment is part of."""
    found = await planes.pipelines(tx, environment.organization_id, None, MAX_PIPELINES)
    by_name = {pipeline.name: pipeline for pipeline in found if environment.name in pipeline.environments}
    if not by_name:
        raise Conflict(
            f"the environment {environment.name} is part of no pipeline",
            code="NotPromotable",
            hint="an owner adds a pipeline that leads to it",
        )
    pipeline: Pipeline = by_name.get(DEFAULT_PIPELINE) or next(iter(by_name.values()))
    return pipeline.before(environment.name)


async def _check_proven(tx: Transaction, request: Request, build: Build, before: str) -> None:
    earlier = await planes_service.get_environment(tx, request.environment.organization_id, before)
    release = await store.release_of_build(tx, build.organization_id, build.id)
    if release is None or not await store.was_ready(tx, build.component_id, earlier.id, release.id):
        what = release.name if release else f"the build {build.name}"
        raise Conflict(
            f"{what} has not been ready in {earlier.name}, which comes before {request.environment.name}",
            code="NotPromotable",
            hint=f"`minuet create deployment {_words(request.component, earlier)} --build-id {build.name}` first, "
            "and promote it when it is Ready",
        )


async def _release(tx: Transaction, request: Request, build: Build) -> Release:
    found = await store.release_of_build(tx, build.organization_id, build.id)
    if found is not None:
        return found
    day = request.now.strftime("%Y%m%d")
    number = await store.last_release_of_day(tx, build.component_id, day) + 1
    release = Release(
        id=new_id("rel"),
        organization_id=build.organization_id,
        component_id=build.component_id,
        build_id=build.id,
        build=build.name,
        name=f"{day}-{number}",
        created_by=request.requested_by,
        created_at=request.now,
    )
    await store.insert_release(tx, release, day, number)
    return release
