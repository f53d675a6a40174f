"""Certificates of our own making, which peers pin by fingerprint instead of trusting an authority.

Server and builder serve TLS with one wherever they listen beyond loopback.
"""

from __future__ import annotations

import datetime
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from minuet.infra import files, http, telemetry
from minuet.kernel.errors import Unavailable

CERTIFICATE_DAYS = 397
"""Longest life that clients accept of a certificate; there is a warning at each start when less than a third is left."""

_log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files of a certificate and its key, and what peers pin it by."""

    certificate: Path
    key: Path
    fingerprint: str


def own(directory: Path, host: str) -> Certificate:
    """Returns the certificate kept in a directory, made at the first call.

    Its fingerprint is written beside it, for the settings of those who pin it. An old one is never replaced
    by itself, because that would break every pin; without the certificate's file a new one is made for the same key.
    """
    files.make_private_directory(directory)
    path, key = directory / "certificate.pem", directory / "key.pem"
    if not path.exists() or not key.exists():
        _make(path, key, host)
    left = _left(path)
    if left < datetime.timedelta(days=CERTIFICATE_DAYS / 3):
        hint = "remove the file and start again, then give the new fingerprint to all who pin it"
        _log.warning("certificate_grows_old", file=str(path), days_left=left.days, hint=hint)
    found = read(path, key)
    files.write_atomically(directory / "fingerprint", f"{found.fingerprint}\n".encode())
    return found


def read(path: Path, key: Path) -> Certificate:
    """Reads a certificate's PEM file; the key is only passed on."""
    loaded = x509.load_pem_x509_certificate(path.read_bytes())
    return Certificate(path, key, http.fingerprint_of(loaded.public_bytes(Encoding.DER)))


def _left(path: Path) -> datetime.timedelta:
    loaded = x509.load_pem_x509_certificate(path.read_bytes())
    return loaded.not_valid_after_utc - datetime.datetime.now(datetime.UTC)


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Returns the key in a file, made if there is none."""
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        files.create_secret(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    loaded = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise Unavailable(f"{path} is not a key of an elliptic curve", code="KeyUnusable", hint="remove it")
    return loaded


def _make(path: Path, key_path: Path, host: str) -> None:
    key = _key(key_path)
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
    files.write_atomically(path, made.public_bytes(Encoding.PEM))


def _names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.DNSName(socket.gethostname())]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    return names
