"""The desired-state log: what each data plane is to run, in order and signed.

Slices above append documents; each append is one revision. What is live is kept
apart from the revisions, so that a snapshot needs no replay. A tombstoned
document stays until the agent reports that it is gone, which is how a report
about a strange workload is told from one about a workload on its way out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from minuet.control.planes import store
from minuet.control.planes.store import PLANES
from minuet.infra.database import Transaction
from minuet.infra.events import Event
from minuet.infra.tables import BigNumber, Moment, metadata
from minuet.kernel.canonical import digest_of
from minuet.kernel.clock import SystemClock
from minuet.kernel.errors import Exhausted, NotFound
from minuet.protocol.desired import Change, Revision, Signed, Tombstone
from minuet.protocol.frames import MAX_FRAME_BYTES
from minuet.protocol.signing import Signer, sign_revision

DOCUMENTS = sa.Table(
    "desired_document",
    metadata,
    sa.Column("plane_id", sa.String(40), sa.ForeignKey("data_plane.id"), primary_key=True),
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("revision", BigNumber, nullable=False),
    sa.Column("is_removed", sa.Boolean, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
)

REVISIONS = sa.Table(
    "desired_revision",
    metadata,
    sa.Column("plane_id", sa.String(40), sa.ForeignKey("data_plane.id"), primary_key=True),
    sa.Column("epoch", BigNumber, primary_key=True),
    sa.Column("revision", BigNumber, primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("signature", sa.String(120), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
)

APPENDED = "plane.revised"
"""Event after an append; its subject is the plane's id."""

KEEP_REVISIONS = 1000
"""Revisions kept as deltas; an agent that is further behind gets a snapshot."""

MAX_PLANE_BYTES = MAX_FRAME_BYTES - 256 * 1024
"""All live documents of a plane, as they are escaped in a frame; a snapshot of them must fit into one."""

MAX_DOCUMENTS = 2000
"""Live documents of a plane; more need another plane."""

DELTAS_AT_ONCE = 100

_CHANGE: TypeAdapter[Change] = TypeAdapter(Change)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the log."""

    epoch: int
    revision: int


class DesiredLog:
    """Appends and reads; signs with the control plane's key."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    @property
    def public_key(self) -> str:
        """What agents verify revisions with."""
        return self._signer.public_key

    async def append(
        self, tx: Transaction, plane_id: str, changes: Sequence[Change], *, organization_id: str
    ) -> Position:
        """Adds one revision with these changes; raises `Exhausted` when the plane is full."""
        position = await self._next(tx, plane_id)
        for change in changes:
            await _keep(tx, plane_id, organization_id, position.revision, change)
        await _check_room(tx, plane_id)
        plane = await _name(tx, plane_id)
        revision = Revision(
            plane=plane,
            epoch=position.epoch,
            revision=position.revision,
            previous=position.revision - 1,
            previous_digest=await digest_at(tx, plane_id, Position(position.epoch, position.revision - 1)),
            changes=tuple(changes),
        )
        await self._insert(tx, plane_id, organization_id, revision)
        tx.emit(Event(APPENDED, organization_id, plane_id, {"epoch": position.epoch, "revision": position.revision}))
        return position

    async def _next(self, tx: Transaction, plane_id: str) -> Position:
        # The update comes first: it takes the plane's row, so that revisions of one plane are made one after another.
        counted = sa.update(PLANES).where(PLANES.c.id == plane_id).values(revision=PLANES.c.revision + 1)
        row = await tx.one(counted.returning(PLANES.c.epoch, PLANES.c.revision))
        if row is None:
            raise NotFound("there is no such data plane", code="DataPlaneNotFound")
        return Position(row.epoch, row.revision)

    async def _insert(self, tx: Transaction, plane_id: str, organization_id: str, revision: Revision) -> None:
        signed = sign_revision(self._signer, revision)
        await tx.execute(
            sa.insert(REVISIONS).values(
                plane_id=plane_id,
                epoch=revision.epoch,
                revision=revision.revision,
                organization_id=organization_id,
                payload=signed.payload,
                signature=signed.signature,
                created_at=SystemClock().now(),
            )
        )
        old = revision.revision - KEEP_REVISIONS
        is_old = sa.or_(REVISIONS.c.epoch < revision.epoch, REVISIONS.c.revision <= old)
        await tx.execute(sa.delete(REVISIONS).where(REVISIONS.c.plane_id == plane_id, is_old))

    async def following(
        self, tx: Transaction, plane_id: str, held: Position, *, whole: bool = False
    ) -> list[tuple[Position, Signed]]:
        """Returns what an agent at `held` needs next: some deltas, one snapshot (always if `whole`), or nothing.

        An agent that is ahead of the log, or holds another one, gets nothing: the
        control plane was restored from an old backup, and only `begin_epoch` may
        go on from there.
        """
        plane = await store.plane_by_id(tx, plane_id)
        if plane is None or plane.is_diverged or (plane.epoch, plane.revision) < (held.epoch, held.revision):
            return []
        if (plane.epoch, plane.revision) == (held.epoch, held.revision) and not whole:
            return []
        if whole or held.epoch != plane.epoch or not await _has(tx, plane_id, plane.epoch, held.revision + 1):
            position = Position(plane.epoch, plane.revision)
            return [(position, await self._snapshot(tx, plane_id, plane.name, position))]
        query = sa.select(REVISIONS).where(
            REVISIONS.c.plane_id == plane_id, REVISIONS.c.epoch == plane.epoch, REVISIONS.c.revision > held.revision
        )
        rows = await tx.all(query.order_by(REVISIONS.c.revision).limit(DELTAS_AT_ONCE))
        return [
            (Position(row.epoch, row.revision), Signed(payload=row.payload, signature=row.signature)) for row in rows
        ]

    async def _snapshot(self, tx: Transaction, plane_id: str, name: str, position: Position) -> Signed:
        query = sa.select(DOCUMENTS.c.content).where(DOCUMENTS.c.plane_id == plane_id).order_by(DOCUMENTS.c.key)
        # Removed documents go along as tombstones, because absence is never deletion.
        changes = tuple(_CHANGE.validate_json(row.content) for row in await tx.all(query))
        revision = Revision(
            plane=name,
            epoch=position.epoch,
            revision=position.revision,
            previous=0,
            digest=await digest_at(tx, plane_id, position),
            snapshot=True,
            changes=changes,
        )
        return sign_revision(self._signer, revision)

    async def begin_epoch(self, tx: Transaction, plane_id: str, at_least: int = 0) -> Position:
        """Starts a new epoch above every known one; for an operator who restored a backup."""
        plane = await store.plane_by_id(tx, plane_id)
        if plane is None:
            raise NotFound("there is no such data plane", code="DataPlaneNotFound")
        epoch = max(plane.epoch, plane.acknowledged_epoch, plane.diverged_epoch or 0, at_least) + 1
        await store.change_plane(tx, plane_id, epoch=epoch, trouble=None, trouble_reason=None, diverged_epoch=None)
        tx.emit(Event(APPENDED, plane.organization_id, plane_id, {"epoch": epoch, "revision": plane.revision}))
        return Position(epoch, plane.revision)


async def digest_at(tx: Transaction, plane_id: str, position: Position) -> str | None:
    """Returns the digest of the log up to a place in it; nothing where an epoch began or what is too long ago."""
    payload = await _payload(tx, plane_id, position)
    return None if payload is None else digest_of(payload.encode())


async def known_keys(tx: Transaction, plane_id: str, keys: Iterable[str]) -> frozenset[str]:
    """Returns those of the keys that are documents of the plane, removed ones not yet gone included."""
    wanted = list(keys)
    if not wanted:
        return frozenset()
    query = sa.select(DOCUMENTS.c.key).where(DOCUMENTS.c.plane_id == plane_id, DOCUMENTS.c.key.in_(wanted))
    return frozenset(str(row.key) for row in await tx.all(query))


async def forget_removed(tx: Transaction, plane_id: str, keys: Iterable[str]) -> None:
    """Drops tombstones whose workloads the agent reported as gone."""
    gone = (DOCUMENTS.c.plane_id == plane_id, DOCUMENTS.c.is_removed, DOCUMENTS.c.key.in_(list(keys)))
    await tx.execute(sa.delete(DOCUMENTS).where(*gone))


async def used_by(tx: Transaction, plane_id: str, organization_id: str) -> tuple[int, int]:
    """Returns how many documents an organization has on a plane, and their size in bytes."""
    sums = sa.select(
        sa.func.count().label("documents"), sa.func.coalesce(sa.func.sum(DOCUMENTS.c.size), 0).label("bytes")
    )
    row = await tx.one(sums.where(DOCUMENTS.c.plane_id == plane_id, DOCUMENTS.c.organization_id == organization_id))
    return (0, 0) if row is None else (int(row.documents), int(row.bytes))


async def _keep(tx: Transaction, plane_id: str, organization_id: str, revision: int, change: Change) -> None:
    content = change.wire()
    values: dict[str, object] = {
        "organization_id": organization_id,
        "revision": revision,
        "is_removed": isinstance(change, Tombstone),
        "size": len(json.dumps(content, ensure_ascii=False).encode()),
        "content": content,
    }
    place = (DOCUMENTS.c.plane_id == plane_id, DOCUMENTS.c.key == change.key)
    changed = await tx.execute(sa.update(DOCUMENTS).where(*place).values(**values))
    if changed.rowcount == 0:
        await tx.execute(sa.insert(DOCUMENTS).values(plane_id=plane_id, key=change.key, **values))


async def _check_room(tx: Transaction, plane_id: str) -> None:
    sums = sa.select(
        sa.func.count().label("documents"), sa.func.coalesce(sa.func.sum(DOCUMENTS.c.size), 0).label("bytes")
    )
    row = await tx.one(sums.where(DOCUMENTS.c.plane_id == plane_id))
    if row is not None and (row.documents > MAX_DOCUMENTS or row.bytes > MAX_PLANE_BYTES):
        raise Exhausted("the data plane is full", code="PlaneFull", hint="remove what is not used, or add a data plane")


async def _name(tx: Transaction, plane_id: str) -> str:
    row = await tx.one(sa.select(PLANES.c.name).where(PLANES.c.id == plane_id))
    if row is None:
        raise NotFound("there is no such data plane", code="DataPlaneNotFound")
    return str(row.name)


async def _has(tx: Transaction, plane_id: str, epoch: int, revision: int) -> bool:
    return await tx.one(_at(sa.select(REVISIONS.c.revision), plane_id, epoch, revision)) is not None


async def _payload(tx: Transaction, plane_id: str, position: Position) -> str | None:
    row = await tx.one(_at(sa.select(REVISIONS.c.payload), plane_id, position.epoch, position.revision))
    return None if row is None else str(row.payload)


def _at(query: sa.Select[Any], plane_id: str, epoch: int, revision: int) -> sa.Select[Any]:
    return query.where(REVISIONS.c.plane_id == plane_id, REVISIONS.c.epoch == epoch, REVISIONS.c.revision == revision)
