"""The files that make this control plane itself: vault key, signing key, certificate.

Made at the first start, read at each later one; a backup is worthless without them.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from minuet.infra import certificates, files, vault
from minuet.infra.certificates import Certificate
from minuet.infra.vault import Vault
from minuet.kernel.errors import Unavailable
from minuet.protocol.signing import Signer, new_signing_key
from minuet.server.settings import Listen


@dataclass(frozen=True, slots=True)
class Keys:
    """What the control plane seals and signs with."""

    vault: Vault
    signer: Signer


def load(data: Path) -> Keys:
    """Reads the keys below the data directory, making what does not exist yet."""
    directory = data / "keys"
    files.make_private_directory(directory)
    return Keys(vault.load_or_create(directory / "master.key"), Signer(_signing_key(directory / "signing.key")))


def _signing_key(path: Path) -> bytes:
    if not path.exists():
        files.write_secret(path, base64.b64encode(new_signing_key()) + b"\n")
    if path.stat().st_mode & 0o077:
        raise Unavailable(f"{path} can be read by others", code="KeyExposed", hint=f"chmod 600 {path}")
    return base64.b64decode(path.read_bytes())


def certificate(data: Path, listen: Listen) -> Certificate:
    """Returns the certificate to serve with: the configured one, or one of our own."""
    if listen.certificate is not None and listen.key is not None:
        return certificates.read(listen.certificate, listen.key)
    return certificates.own(data / "tls", listen.host)
