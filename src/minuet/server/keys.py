"""The files that make this control plane itself: vault key, signing key, certificate.

Made at the first start, read at each later one; a backup is worthless without
them. The database remembers which keys belong to it, so that one that was
restored without them, or is shared by a replica with other ones, is refused
before anything is sealed or signed with a key that nobody else knows.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from minuet.control.tenancy import store as organizations
from minuet.infra import certificates, files, vault
from minuet.infra.certificates import Certificate
from minuet.infra.database import Database, Transaction
from minuet.infra.tables import metadata
from minuet.infra.vault import Vault
from minuet.kernel.errors import Conflict, Unavailable
from minuet.protocol.signing import Signer, new_signing_key
from minuet.server.settings import Listen

TABLE = sa.Table(
    "own_key",
    metadata,
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("key_id", sa.String(64), nullable=False),
)

MASTER, SIGNING = "master", "signing"
_FILES = {MASTER: "master.key", SIGNING: "signing.key"}


@dataclass(frozen=True, slots=True)
class Keys:
    """What the control plane seals and signs with."""

    vault: Vault
    signer: Signer

    @property
    def ids(self) -> dict[str, tuple[str, ...]]:
        """Names of the keys by what they are for, the current one first."""
        return {
            MASTER: self.vault.key_ids,
            SIGNING: (hashlib.sha256(self.signer.public_key.encode()).hexdigest()[:12],),
        }


async def open_(data: Path, database: Database) -> Keys:
    """Returns the keys that belong to the database; makes them at its first start only.

    Raises `Conflict` (`WrongKeys`) when the files are missing or are those of another control plane.
    """

    async def work(tx: Transaction) -> Keys:
        known = {str(row.name): str(row.key_id) for row in await tx.all(sa.select(TABLE))}
        # A database of an older version has rows, and no names of keys yet.
        if known or await organizations.listed(tx, None, None, 1):
            _check_presence(data)
        keys = load(data)
        for name, ids in keys.ids.items():
            if known.get(name, ids[0]) not in ids:
                raise _wrong(data, f"{_FILES[name]} is the key of another control plane")
        await _remember(tx, keys, known)
        return keys

    # Another replica may start for the first time too; the next attempt finds what it wrote down.
    return await database.run(work, races=(IntegrityError,))


def load(data: Path) -> Keys:
    """Reads the keys below the data directory, making what does not exist yet."""
    directory = _directory(data)
    files.make_private_directory(directory)
    return Keys(vault.load_or_create(directory / _FILES[MASTER]), Signer(_signing_key(directory / _FILES[SIGNING])))


async def _remember(tx: Transaction, keys: Keys, known: dict[str, str]) -> None:
    """Writes down the names of the current keys; after a rotation the old one was found among the retired."""
    for name, ids in keys.ids.items():
        if name not in known:
            await tx.execute(sa.insert(TABLE).values(name=name, key_id=ids[0]))
        elif known[name] != ids[0]:
            await tx.execute(sa.update(TABLE).where(TABLE.c.name == name).values(key_id=ids[0]))


def _check_presence(data: Path) -> None:
    for name in _FILES.values():
        if not (_directory(data) / name).exists():
            raise _wrong(data, f"{name} is missing")


def _wrong(data: Path, what: str) -> Conflict:
    return Conflict(
        f"the keys in {_directory(data)} do not belong to the database: {what}",
        code="WrongKeys",
        hint="restore the directory `keys` that was backed up with the database, or copy that of the other replicas",
    )


def _directory(data: Path) -> Path:
    return data / "keys"


def _signing_key(path: Path) -> bytes:
    if not path.exists():
        files.create_secret(path, base64.b64encode(new_signing_key()) + b"\n")
    if path.stat().st_mode & 0o077:
        raise Unavailable(f"{path} can be read by others", code="KeyExposed", hint=f"chmod 600 {path}")
    return base64.b64decode(path.read_bytes())


def certificate(data: Path, listen: Listen) -> Certificate:
    """Returns the certificate to serve with: the configured one, or one of our own."""
    if listen.certificate is not None and listen.key is not None:
        return certificates.read(listen.certificate, listen.key)
    return certificates.own(data / "tls", listen.host)
