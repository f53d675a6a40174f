"""The files that make this control plane itself: vault key, signing key, certificate.

Made at the first start, read at each later one; a backup is worthless without them.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from minuet.infra import files, http, vault
from minuet.infra.vault import Vault
from minuet.kernel.errors import Unavailable
from minuet.protocol.signing import Signer, new_signing_key
from minuet.server.settings import Listen

CERTIFICATE_DAYS = 397
"""Longest life that clients accept of a certificate; it is made again when less than a third is left."""


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


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files of a certificate and its key, and what peers pin it by."""

    certificate: Path
    key: Path
    fingerprint: str


def certificate(data: Path, listen: Listen) -> Certificate:
    """Returns the certificate to serve with: the configured one, or one of our own."""
    if listen.certificate is not None and listen.key is not None:
        return _read(listen.certificate, listen.key)
    directory = data / "tls"
    files.make_private_directory(directory)
    own, key = directory / "certificate.pem", directory / "key.pem"
    if not own.exists() or not key.exists() or _is_old(own):
        _make(own, key, listen.host)
    found = _read(own, key)
    files.write_atomically(directory / "fingerprint", f"{found.fingerprint}\n".encode())
    return found


def _read(path: Path, key: Path) -> Certificate:
    loaded = x509.load_pem_x509_certificate(path.read_bytes())
    return Certificate(path, key, http.fingerprint_of(loaded.public_bytes(Encoding.DER)))


def _is_old(path: Path) -> bool:
    loaded = x509.load_pem_x509_certificate(path.read_bytes())
    left = loaded.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return left < datetime.timedelta(days=CERTIFICATE_DAYS / 3)


def _make(path: Path, key_path: Path, host: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "minuet")])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    made = builder.sign(key, hashes.SHA256())
    files.write_secret(key_path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    files.write_atomically(path, made.public_bytes(Encoding.PEM))


def _names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.DNSName(socket.gethostname())]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    return names
