"""Secrets on their way to one data plane: HPKE (RFC 9180) to that plane's X25519 key.

The control plane seals with the public key; only the process that starts
sandboxes holds the private one. The context (workload key and variable name)
is bound in, so that a ciphertext cannot be moved to another place.
"""

from __future__ import annotations

import base64

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from minuet.kernel.errors import Forbidden
from minuet.kernel.secrets import Secret

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def new_sealing_key() -> bytes:
    """Returns the 32 private bytes of a data plane."""
    return X25519PrivateKey.generate().private_bytes_raw()


def sealing_public_key(private_key: bytes) -> str:
    """Returns what the agent announces of its key."""
    public = X25519PrivateKey.from_private_bytes(private_key).public_key()
    return base64.b64encode(public.public_bytes_raw()).decode()


def is_sealing_key(public_key: str) -> bool:
    """Whether values can be sealed with it, tried by doing so."""
    try:
        seal(public_key, Secret(""), "")
    except ValueError:
        return False
    return True


def seal(public_key: str, value: Secret, context: str) -> str:
    """Encrypts a value for the holder of the private key; raises `ValueError` for a bad key."""
    key = X25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
    return base64.b64encode(_SUITE.encrypt(value.reveal().encode(), key, context.encode())).decode()


def unseal(private_key: bytes, ciphertext: str, context: str) -> Secret:
    """Decrypts; raises `Forbidden` (`BadCiphertext`) if key or context differ."""
    key = X25519PrivateKey.from_private_bytes(private_key)
    try:
        return Secret(_SUITE.decrypt(base64.b64decode(ciphertext, validate=True), key, context.encode()).decode())
    except (InvalidTag, ValueError) as error:
        raise Forbidden("the sealed value cannot be opened here", code="BadCiphertext") from error
