"""What a control plane is born with: an organization, a data plane, and the credentials of its neighbours.

Runs at every start and adds only what is missing. A credential's file is
written before the commit that makes it valid: a crash in between leaves a file
that opens nothing, and the next start writes another. Credentials that are in
use elsewhere stay valid; only an empty file asks for a new one in their place.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.exc import IntegrityError

from minuet.control.identity import service as identity
from minuet.control.identity import store as tokens
from minuet.control.identity.model import Role
from minuet.control.planes import service as planes
from minuet.control.planes import store as plane_store
from minuet.control.planes.model import DEFAULT_PLANE
from minuet.control.tenancy import service as tenancy
from minuet.control.tenancy import store as organizations
from minuet.control.tenancy.model import DEFAULT
from minuet.infra import files
from minuet.infra.database import Database, Transaction
from minuet.kernel.clock import Clock
from minuet.kernel.secrets import Secret, token_hash
from minuet.server.settings import ServerSettings

OWNER_FILE = "owner.token"
CREDENTIALS = "credentials"


async def prepare(settings: ServerSettings, database: Database, clock: Clock) -> None:
    """Makes what is missing; raises `Unavailable` if the database or the disk cannot be written."""
    directory = settings.data / CREDENTIALS
    files.make_private_directory(directory)

    async def work(tx: Transaction) -> None:
        plane_id = await _default_plane(tx, settings, clock)
        await _default_organization(tx, settings.data / OWNER_FILE, clock)
        await _credential(tx, directory / "builder.token", Role.BUILDER, None, clock)
        await _credential(tx, directory / "agent.token", Role.AGENT, plane_id, clock)

    # Another replica may start for the first time too; the next attempt finds what it made.
    await database.run(work, races=(IntegrityError,))


async def _default_plane(tx: Transaction, settings: ServerSettings, clock: Clock) -> str:
    found = await plane_store.plane_by_name(tx, DEFAULT_PLANE)
    if found is None:
        found = await planes.create_plane(tx, DEFAULT_PLANE, domain=settings.plane.domain, now=clock.now())
    return found.id


async def _default_organization(tx: Transaction, path: Path, clock: Clock) -> None:
    """Makes the organization with its operator's token; a file that was put away later is not made again."""
    if await organizations.by_name(tx, DEFAULT) is not None:
        return
    now = clock.now()
    made = await tenancy.create_organization(tx, DEFAULT, "Default", now=now, founders=[planes.found_organization])
    _, secret = await identity.create_token(
        tx,
        name=tenancy.OWNER_TOKEN,
        role=Role.OPERATOR,
        now=now,
        organization_id=made.id,
        organization=made.name,
    )
    _write(path, secret)


async def _credential(tx: Transaction, path: Path, role: Role, plane_id: str | None, clock: Clock) -> None:
    """Makes the credential of a neighbour unless its file holds a valid one.

    Without a file the neighbours that have theirs go on with it, for example those of a replica that keeps
    its files elsewhere. An empty file is how an operator voids all others.
    """
    text = _read(path)
    if text:
        found = await tokens.by_hash(tx, token_hash(text))
        if found is not None and found[0].is_valid(clock.now()) and found[0].plane_id == plane_id:
            return
    if text == "":
        await tokens.revoke_neighbours(tx, role, plane_id, clock.now())
    _, secret = await identity.create_token(tx, name=role.value, role=role, now=clock.now(), plane_id=plane_id)
    _write(path, secret)


def _read(path: Path) -> str | None:
    return path.read_text().strip() if path.exists() else None


def _write(path: Path, secret: Secret) -> None:
    files.write_secret(path, f"{secret.reveal()}\n".encode())
