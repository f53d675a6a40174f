"""Hands deployments to data planes: renders the current one of each target and appends it to the plane's log.

What stands in the log is written down in the same transaction as the append, so
a document is appended exactly once, wherever the process is killed. Events wake
the loop; a resync finds whatever an event was missed for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.exc import IntegrityError

from minuet.control.builds import service as builds_service
from minuet.control.builds import store as builds
from minuet.control.builds.model import AutoDeploy, Build
from minuet.control.catalog import service as catalog_service
from minuet.control.catalog import store as catalog
from minuet.control.catalog.model import Component
from minuet.control.configuration import service as configuration
from minuet.control.configuration.model import Configuration
from minuet.control.delivery import inputs, observations, service, store, store_sealed
from minuet.control.delivery.model import TOMBSTONE, Address, Deployment, SealedSecret, State, Target, Trouble
from minuet.control.planes import link
from minuet.control.planes import service as planes_service
from minuet.control.planes import store as planes
from minuet.control.planes.log import DesiredLog
from minuet.control.planes.model import DataPlane, Environment
from minuet.control.tenancy import store as tenancy
from minuet.infra import telemetry
from minuet.infra.database import Database, Transaction
from minuet.infra.events import Event
from minuet.infra.outbox import Bus
from minuet.infra.vault import Vault
from minuet.kernel.canonical import digest_of
from minuet.kernel.clock import Clock
from minuet.kernel.errors import Conflict, Exhausted, MinuetError, NotFound, NotReady, Unavailable
from minuet.protocol import sealing
from minuet.protocol.desired import SealedValue, Tombstone
from minuet.protocol.signing import Signer, issue_ticket
from minuet.render import endpoints, workload
from minuet.render.inputs import Entry, Identity, Scale, Sealer

RESYNC_SECONDS = 5.0
"""How late a request is handed over whose event was missed."""

RENDER_SECONDS = 300.0
"""How often everything is rendered again, in case something it depends on changed unnoticed."""

_WAKING = (
    service.REQUESTED,
    builds_service.FINISHED,
    builds_service.BUILDER_REGISTERED,
    catalog_service.COMPONENT_DELETING,
    link.SESSION_STARTED,
    link.ACKNOWLEDGED,
)

_log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True)
class Keys:
    """What the controller signs and opens with."""

    vault: Vault
    signer: Signer


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be appended for a target as it was when it was looked at; a removal without `rendered`."""

    target: Target
    rendered: workload.Rendered | None = None
    content: str | None = None
    fresh: tuple[SealedSecret, ...] = ()


class Deliverer:
    """The controller of one server process; replicas may run theirs at the same time."""

    def __init__(self, database: Database, bus: Bus, desired: DesiredLog, keys: Keys, clock: Clock) -> None:
        self._database = database
        self._bus = bus
        self._desired = desired
        self._keys = keys
        self._clock = clock

    async def run(self) -> None:
        """Delivers until cancelled; a database that is away is waited for."""
        rendered_at = float("-inf")
        with self._bus.subscribe(*_WAKING) as events:
            while True:
                try:
                    everything = self._clock.monotonic() - rendered_at >= RENDER_SECONDS
                    await self.resync(everything=everything)
                    rendered_at = self._clock.monotonic() if everything else rendered_at
                except MinuetError as error:
                    _log.warning("resync_failed", code=error.code, detail=error.message)
                except Exception:  # noqa: BLE001 - a defect must not end the controller; it is logged and tried again
                    _log.exception("resync_broke")
                if await self._must_render(events):
                    rendered_at = float("-inf")

    async def _must_render(self, events: AsyncIterator[Event]) -> bool:
        """Waits for news; returns whether they may change what is rendered for targets that were delivered already."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RESYNC_SECONDS):
                event = await anext(events)
            if event.kind == builds_service.BUILDER_REGISTERED:
                return True
            return event.kind == link.SESSION_STARTED and bool(event.data.get("key_changed"))
        return False

    async def resync(self, *, everything: bool = False) -> None:
        """Does all that is to be done now; one target that fails does not stop the others."""
        # What is to be done is looked for in transactions that only read, which neither wait for writers nor fail them.
        await self._deploy_pushed()
        async with self._database.reading() as tx:
            deleted = await store.of_deleted_components(tx)
            removing = await store.removing(tx)
        await self._each(deleted, self._undeploy_deleted)
        async with self._database.reading() as tx:
            waiting = await store.undelivered(tx)
        for target in waiting:
            await self.deliver(target)
        await self._each(removing, self._finish_removal)
        if everything:
            await self._database.run(store.release_gone_builds)
            await self._render_all()

    async def _each(self, targets: Sequence[Target], work: Callable[[Transaction, Target], Awaitable[None]]) -> None:
        """Does something for each target as it is by then, in a transaction of its own."""
        for known in targets:

            async def step(tx: Transaction, known: Target = known) -> None:
                target = await store.target(tx, known.organization_id, known.component_id, known.environment_id)
                if target is not None:
                    await work(tx, target)

            try:
                await self._database.run(step)
            except Unavailable:
                raise
            except Exception:  # noqa: BLE001 - one target that brings out a defect must not stop the others
                _log.exception("target_broke", target=known.key, step=work.__name__)

    async def _render_all(self) -> None:
        after = ("", "")
        while True:
            async with self._database.reading() as tx:
                page = await store.all_current(tx, after)
            for target in page:
                await self.deliver(target)
            if len(page) < store.BATCH:
                return
            after = (page[-1].component_id, page[-1].environment_id)

    async def deliver(self, target: Target) -> None:
        """Brings one target's newest request into its plane's log, or records why that is not possible.

        Rendering only reads. The writing transaction that follows is short, and
        does nothing if the target moved on meanwhile: then another round comes.
        """
        try:
            async with self._database.reading() as tx:
                plan = await self._planned(tx, target)
            if plan is not None:
                await self._database.run(lambda tx: self._append(tx, plan))
            return
        except Unavailable:
            raise
        except IntegrityError:
            return  # another replica sealed the same secret a moment ago; its ciphertext is used in the next round
        except MinuetError as error:
            failure = error
        except Exception:  # noqa: BLE001 - one target that brings out a defect must not stop the others
            _log.exception("delivery_broke", target=target.key)
            failure = Conflict("handing it over met a defect; the server's log says more", code="DeliveryFailed")
        _log.warning("not_delivered", target=target.key, code=failure.code, detail=failure.message)
        await self._database.run(lambda tx: self._record_trouble(tx, target, failure))

    async def _planned(self, tx: Transaction, known: Target) -> Plan | None:
        target = await store.target(tx, known.organization_id, known.component_id, known.environment_id)
        if target is None:
            return None
        if target.current_id is None:
            return Plan(target) if target.removed_by is not None and target.appended_id != TOMBSTONE else None
        deployment = await store.deployment_by_id(tx, target.organization_id, target.current_id)
        if deployment is None:
            raise NotFound("the deployment is gone", code="DeploymentNotFound")
        rendered, fresh = await self._rendered(tx, target, deployment)
        content = digest_of(rendered.workload.wire().encode())
        if (target.appended_id, target.appended_hash) == (deployment.id, content):
            return None
        return Plan(target, rendered, content, fresh)

    async def _append(self, tx: Transaction, plan: Plan) -> None:
        known = plan.target
        target = await store.target(tx, known.organization_id, known.component_id, known.environment_id)
        if target is None or _place(target) != _place(known):
            return
        if plan.rendered is None:
            await self._append_tombstone(tx, target)
            return
        for value in plan.fresh:
            await store_sealed.put(tx, target, value)
        rendered = plan.rendered
        place = await self._desired.append(
            tx, target.plane_id, [rendered.workload], organization_id=target.organization_id
        )
        changed = replace(
            target,
            appended_id=target.current_id,
            appended_hash=plan.content,
            appended_epoch=place.epoch,
            appended_revision=place.revision,
            addresses=tuple(
                Address(route.endpoint, route.host, route.base_path)
                for route in endpoints.declared(rendered.workload.routes)
            ),
            not_in_force=rendered.not_in_force,
            trouble=None,
            updated_at=self._clock.now(),
        )
        await store.put_target(tx, changed)
        service.announce(tx, changed, service.CHANGED)

    async def _append_tombstone(self, tx: Transaction, target: Target) -> None:
        if target.appended_id is None:
            await observations.release(tx, target)
            service.announce(tx, target, service.CHANGED)
            return
        tombstone = Tombstone(key=target.key, confirmed_by=target.removed_by)
        place = await self._desired.append(tx, target.plane_id, [tombstone], organization_id=target.organization_id)
        changed = replace(
            target,
            appended_id=TOMBSTONE,
            appended_hash=None,
            appended_epoch=place.epoch,
            appended_revision=place.revision,
            trouble=None,
            updated_at=self._clock.now(),
        )
        await store.put_target(tx, changed)
        service.announce(tx, changed, service.CHANGED)

    async def _rendered(
        self, tx: Transaction, target: Target, deployment: Deployment
    ) -> tuple[workload.Rendered, tuple[SealedSecret, ...]]:
        component, environment, plane, organization = await _owners(tx, target)
        build = await builds.by_id(tx, target.organization_id, deployment.build_id)
        builder = None if build is None else await builds.builder(tx, build.builder_id or "")
        if build is None or build.artifact is None or builder is None:
            raise NotFound(f"the build of {deployment.release} is gone", code="ArtifactUnavailable")
        chosen = await configuration.at_revision(tx, component, environment.id, deployment.config_revision)
        ticket = issue_ticket(self._keys.signer, plane=plane.name, artifact=build.artifact.digest)
        seal, fresh = await self._sealer(tx, target, plane, chosen)
        rendered = workload.render(
            inputs.built(build, builder, ticket),
            inputs.place(organization, component, environment, plane),
            Identity(deployment.name, deployment.generation, deployment.release, deployment.restart),
            scale=Scale(deployment.replicas, suspended=deployment.state is State.SUSPENDED),
            entries=[entry.entry() for entry in chosen.entries],
            seal=seal,
            health=chosen.health,
        )
        return rendered, fresh

    async def _sealer(
        self, tx: Transaction, target: Target, plane: DataPlane, chosen: Configuration
    ) -> tuple[Sealer, tuple[SealedSecret, ...]]:
        """Returns a pure look-up of ciphertexts, and those that were not known and have to be kept."""
        secrets = [entry for entry in chosen.entries if entry.kind.is_secret]
        if not secrets:
            return _nothing_sealed, ()
        if plane.sealing_key is None:
            raise NotReady(
                f"the data plane {plane.name} has not announced its key for secrets yet", code="PlaneNotConnected"
            )
        known = await store_sealed.known(tx, target, plane.sealing_key)
        fresh = []
        for entry in secrets:
            if (entry.name, entry.version) in known:
                continue
            value = configuration.open_secret(self._keys.vault, chosen, entry.name)
            context = f"{target.key}/{entry.mount_path or entry.name}"
            ciphertext = sealing.seal(plane.sealing_key, value, context)
            fresh.append(SealedSecret(entry.name, entry.version, plane.sealing_key, ciphertext))
            known[entry.name, entry.version] = ciphertext

        def seal(entry: Entry, _context: str) -> SealedValue:
            return SealedValue(version=entry.version, ciphertext=known[entry.name, entry.version])

        return seal, tuple(fresh)

    async def _record_trouble(self, tx: Transaction, known: Target, error: MinuetError) -> None:
        target = await store.target(tx, known.organization_id, known.component_id, known.environment_id)
        if target is None or target.current_id != known.current_id:
            return
        trouble = Trouble(_reason_of(error), error.message, self._clock.now())
        if target.trouble is not None and (target.trouble.reason, target.trouble.message) == (
            trouble.reason,
            trouble.message,
        ):
            return
        await store.put_target(tx, replace(target, trouble=trouble))
        service.announce(tx, target, service.CHANGED)

    async def _undeploy_deleted(self, tx: Transaction, target: Target) -> None:
        reason = f"deletion of the component {target.component_id}"
        await service.undeploy(tx, target, confirmed_by=reason, now=self._clock.now())

    async def _finish_removal(self, tx: Transaction, target: Target) -> None:
        """Lets go what the agent was told to remove and never had, so that no report will come about it."""
        plane = await planes.plane_by_id(tx, target.plane_id)
        held = (0, 0) if plane is None else (plane.acknowledged_epoch, plane.acknowledged_revision)
        is_told = held >= (target.appended_epoch, target.appended_revision)
        is_removing = target.current_id is None and target.appended_id == TOMBSTONE
        if is_removing and target.observed is None and is_told:
            await observations.release(tx, target)
            service.announce(tx, target, service.CHANGED)

    async def _deploy_pushed(self) -> None:
        async with self._database.reading() as tx:
            wanted = await builds.wanting_deployment(tx)
        for build in wanted:
            try:
                await self._database.run(lambda tx, build=build: self._deploy_one(tx, build))  # type: ignore[misc]
            except Unavailable:
                raise
            except Exception as error:  # noqa: BLE001 - one push that brings out a defect must not stop the others
                known = isinstance(error, MinuetError)
                _log.warning("not_deployed", build=build.name, detail=str(error), exc_info=not known)
                text = f"it was not deployed by itself: {error if known else 'it met a defect; see the log'}"
                await self._database.run(lambda tx, build=build, text=text: _settle(tx, build, text))  # type: ignore[misc]

    async def _deploy_one(self, tx: Transaction, build: Build) -> None:
        """Deploys a build of a push to the first environment, unless a newer push is there already."""
        fresh = await builds.by_id(tx, build.organization_id, build.id)
        if fresh is None or fresh.auto_deploy is not AutoDeploy.WANTED:
            return
        if not await builds.deployed_later(tx, fresh):
            pipeline = await planes_service.get_pipeline(tx, fresh.organization_id)
            environment = await planes_service.get_environment(tx, fresh.organization_id, pipeline.environments[0])
            component = await catalog.component_by_id(tx, fresh.organization_id, fresh.component_id)
            if component is not None:
                by = f"push by {fresh.requested_by}"[:120]
                request = service.Request(fresh.organization, component, environment, by, self._clock.now())
                await service.deploy(tx, request, build=fresh.name)
        await _settle(tx, fresh, None)


async def _settle(tx: Transaction, build: Build, warning: str | None) -> None:
    """Records that a build of a push was deployed, or why it was not."""
    fresh = await builds.by_id(tx, build.organization_id, build.id)
    if fresh is None:
        return
    warnings = fresh.warnings if warning is None else (*fresh.warnings, warning)
    await builds.save(tx, replace(fresh, auto_deploy=AutoDeploy.DONE, warnings=warnings))
    builds_service.announce(tx, fresh, builds_service.CHANGED)


async def _owners(tx: Transaction, target: Target) -> tuple[Component, Environment, DataPlane, str]:
    component = await catalog.component_by_id(tx, target.organization_id, target.component_id)
    environment = await planes.environment_by_id(tx, target.organization_id, target.environment_id)
    plane = await planes.plane_by_id(tx, target.plane_id)
    organization = await tenancy.by_id(tx, target.organization_id)
    if component is None or environment is None or plane is None or organization is None:
        raise NotFound("what the deployment belongs to is gone", code="ComponentNotFound")
    return component, environment, plane, organization.name


def _place(target: Target) -> tuple[object, ...]:
    """What must not have moved between rendering and appending."""
    return (target.current_id, target.generation, target.removed_by, target.appended_id, target.appended_hash)


def _reason_of(error: MinuetError) -> str:
    if error.code in ("ArtifactUnavailable", "DeliveryFailed"):
        return error.code
    if isinstance(error, Exhausted):
        return "NoCapacity"
    return "Waiting" if isinstance(error, NotReady) else "DesiredStateInvalid"


def _nothing_sealed(entry: Entry, context: str) -> SealedValue:
    raise AssertionError(f"{entry.name} is not a secret ({context})")
