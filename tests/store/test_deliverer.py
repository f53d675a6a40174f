"""The controller on both databases: what was asked for is appended exactly once, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import sqlalchemy as sa

from minuet.control.catalog import store as catalog
from minuet.control.catalog.store import COMPONENTS
from minuet.control.delivery import service, store
from minuet.control.delivery.controller import Deliverer, Keys
from minuet.control.delivery.model import Deployment, Target
from minuet.control.planes import store as planes
from minuet.control.planes.log import REVISIONS, DesiredLog, Position, known_keys
from minuet.infra.database import Database, Transaction
from minuet.infra.outbox import Bus
from minuet.kernel.clock import SystemClock
from minuet.kernel.errors import Exhausted
from minuet.protocol.desired import Change, Revision
from tests.given import rows


class Killed(BaseException):
    """Stands for the process ending at this point: nothing after it runs."""


class FailingLog(DesiredLog):
    """A log that ends the process after an append, or refuses some keys."""

    dies = False
    refuses: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()

    async def append(
        self, tx: Transaction, plane_id: str, changes: Sequence[Change], *, organization_id: str
    ) -> Position:
        position = await super().append(tx, plane_id, changes, organization_id=organization_id)
        if self.dies:
            raise Killed
        if changes[0].key in self.breaks:
            raise KeyError("a defect")
        if changes[0].key in self.refuses:
            raise Exhausted("the data plane is full", code="PlaneFull")
        return position


def controller(database: Database, log: DesiredLog | None = None) -> Deliverer:
    desired = log or DesiredLog(rows.SIGNER)
    return Deliverer(database, Bus(database), desired, Keys(rows.VAULT, rows.SIGNER), SystemClock())


async def deployed(database: Database, made: rows.World) -> Deployment:
    async with database.transaction() as tx:
        return await service.deploy(tx, made.request())


async def appended(database: Database) -> list[str]:
    """The deployments in the log, by revision."""
    async with database.reading() as tx:
        payloads = await tx.all(sa.select(REVISIONS.c.payload).order_by(REVISIONS.c.revision))
    revisions = [Revision.model_validate_json(row.payload) for row in payloads]
    return [getattr(change, "deployment", change.kind) for revision in revisions for change in revision.changes]


async def target(database: Database, made: rows.World) -> Target:
    async with database.reading() as tx:
        found = await store.target(tx, made.organization.id, made.component.id, made.environment.id)
    assert found is not None
    return found


async def test_what_was_committed_before_a_crash_is_appended_after_it_once(database: Database) -> None:
    made = await rows.world(database)
    await rows.built(database, made)
    deployment = await deployed(database, made)
    assert await appended(database) == []
    for _ in range(3):
        await controller(database).resync(everything=True)
    assert await appended(database) == [deployment.name]


async def test_a_crash_during_the_append_leaves_nothing_half_done(database: Database) -> None:
    made = await rows.world(database)
    await rows.built(database, made)
    deployment = await deployed(database, made)
    log = FailingLog(rows.SIGNER)
    log.dies = True
    with pytest.raises(Killed):
        await controller(database, log).resync()
    assert await appended(database) == []
    assert (await target(database, made)).appended_id is None
    await controller(database).resync()
    assert await appended(database) == [deployment.name]


async def test_replicas_that_deliver_at_once_append_once(database: Database) -> None:
    made = await rows.world(database)
    await rows.built(database, made)
    deployment = await deployed(database, made)
    await asyncio.gather(*(controller(database).resync() for _ in range(4)))
    assert await appended(database) == [deployment.name]


async def test_only_the_newest_of_several_requests_is_appended(database: Database) -> None:
    made = await rows.world(database)
    await rows.built(database, made)
    for _ in range(3):
        last = await deployed(database, made)
    await controller(database).resync()
    assert await appended(database) == [last.name]


async def test_one_target_that_cannot_be_delivered_does_not_stop_the_others(database: Database) -> None:
    acme = await rows.world(database)
    globex = await rows.world(database, "globex", first=False)
    for made in (acme, globex):
        await rows.built(database, made)
        await deployed(database, made)
    log = FailingLog(rows.SIGNER)
    log.refuses = (f"{acme.component.id}/{acme.environment.id}",)
    await controller(database, log).resync()
    refused = await target(database, acme)
    assert refused.trouble is not None
    assert (refused.trouble.reason, refused.appended_id) == ("NoCapacity", None)
    assert (await target(database, globex)).appended_id is not None
    await controller(database).resync()
    assert (await target(database, acme)).trouble is None
    assert len(await appended(database)) == 2


async def test_a_defect_that_one_target_brings_out_is_told_of_it_and_stops_no_other(database: Database) -> None:
    acme = await rows.world(database)
    globex = await rows.world(database, "globex", first=False)
    for made in (acme, globex):
        await rows.built(database, made)
        await deployed(database, made)
    log = FailingLog(rows.SIGNER)
    log.breaks = (f"{acme.component.id}/{acme.environment.id}",)
    await controller(database, log).resync()
    broken = await target(database, acme)
    assert broken.trouble is not None
    assert (broken.trouble.reason, broken.appended_id) == ("DeliveryFailed", None)
    assert (await target(database, globex)).appended_id is not None


async def test_builds_that_went_with_their_component_are_held_no_more(database: Database) -> None:
    made = await rows.world(database)
    build = await rows.built(database, made)
    await deployed(database, made)
    await controller(database).resync(everything=True)

    async def held() -> bool:
        async with database.reading() as tx:
            return bool(await catalog.holds(tx, made.organization.id, build.id))

    assert await held()
    async with database.transaction() as tx:
        await tx.execute(sa.delete(COMPONENTS).where(COMPONENTS.c.id == made.component.id))
    await controller(database).resync(everything=True)
    assert not await held()


async def test_a_builder_at_another_address_changes_the_document_and_nothing_else(database: Database) -> None:
    made = await rows.world(database)
    await rows.built(database, made)
    deployment = await deployed(database, made)
    await controller(database).resync()
    async with database.transaction() as tx:
        await rows.register(tx, "two", "http://127.0.0.1:2")
    await controller(database).resync()
    assert await appended(database) == [deployment.name], "nothing was asked for"
    await controller(database).resync(everything=True)
    assert await appended(database) == [deployment.name] * 2


async def test_a_deployment_that_was_never_delivered_is_undeployed_without_a_tombstone(database: Database) -> None:
    made = await rows.world(database)
    await rows.built(database, made)
    await deployed(database, made)
    async with database.transaction() as tx:
        known = await store.target(tx, made.organization.id, made.component.id, made.environment.id)
        assert known is not None
        await service.undeploy(tx, known, confirmed_by="ada", now=rows.NOW)
    await controller(database).resync()
    assert await appended(database) == []


async def test_a_removal_that_the_agent_holds_and_never_reported_on_ends(database: Database) -> None:
    made = await rows.world(database)
    await rows.built(database, made)
    await deployed(database, made)
    await controller(database).resync()
    async with database.transaction() as tx:
        known = await store.target(tx, made.organization.id, made.component.id, made.environment.id)
        assert known is not None
        await service.undeploy(tx, known, confirmed_by="ada", now=rows.NOW)
    await controller(database).resync()
    assert (await appended(database))[-1] == "tombstone"
    assert (await target(database, made)).removed_by == "ada"
    async with database.transaction() as tx:
        await planes.change_plane(tx, known.plane_id, acknowledged_epoch=1, acknowledged_revision=2)
    await controller(database).resync()
    assert (await target(database, made)).removed_by is None
    async with database.reading() as tx:
        assert not await known_keys(tx, known.plane_id, [known.key])


async def test_the_history_is_bounded_and_lets_old_builds_go(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minuet.control.delivery import model

    monkeypatch.setattr(model, "MAX_HISTORY", 3)
    made = await rows.world(database)
    for _ in range(5):
        await rows.built(database, made)
        await deployed(database, made)
    known = await target(database, made)
    async with database.reading() as tx:
        kept = await store.history(tx, known)
        releases = await store.releases(tx, made.organization.id, made.component.id, None, 50)
    assert [item.generation for item in kept] == [5, 4, 3]
    assert len(releases) == 3
