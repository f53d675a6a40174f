"""Secrets at rest: AES-256-GCM envelopes bound to the place they belong to.

Each secret has a data key of its own, sealed by the master key; both layers
carry the context (organization, project and name), so that a ciphertext copied
to another row does not open. The stores of the control plane use it; the
database never sees a plain secret.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from minuet.infra import files
from minuet.kernel.errors import Forbidden, Unavailable
from minuet.kernel.secrets import Secret

_FORM = "v1"
_KEY_BYTES = 32
_NONCE_BYTES = 12


class Vault:
    """Seals with the current master key; opens with it or with a retired one."""

    def __init__(self, master_key: bytes, retired: tuple[bytes, ...] = ()) -> None:
        self._current = _key_id(master_key)
        self._keys = {_key_id(key): AESGCM(key) for key in (master_key, *retired)}

    def seal(self, secret: Secret, context: str) -> str:
        """Returns `v1.<key id>.<sealed data key>.<sealed secret>`, base64url without padding."""
        bound = context.encode()
        data_key = AESGCM.generate_key(_KEY_BYTES * 8)
        wrapped = _encrypt(self._keys[self._current], data_key, bound)
        body = _encrypt(AESGCM(data_key), secret.reveal().encode(), bound)
        return ".".join((_FORM, self._current, _encode(wrapped), _encode(body)))

    def open(self, text: str, context: str) -> Secret:
        """Returns the secret; raises `Forbidden` (`BadCiphertext`) for another context, key or content."""
        try:
            form, key_id, wrapped, body = text.split(".")
            if form != _FORM:
                raise ValueError(form)
            master = self._keys[key_id]
            data_key = _decrypt(master, _decode(wrapped), context.encode())
            return Secret(_decrypt(AESGCM(data_key), _decode(body), context.encode()).decode())
        except (ValueError, KeyError, InvalidTag) as error:
            raise Forbidden("the secret cannot be opened here", code="BadCiphertext") from error

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Names of the keys it opens with, the current one first; nothing follows from them about the keys."""
        return tuple(self._keys)

    def is_current(self, text: str) -> bool:
        """Whether it was sealed with the current master key; rotation seals the others again."""
        return text.startswith(f"{_FORM}.{self._current}.")


def load_or_create(path: Path) -> Vault:
    """Opens the vault whose master key is in `path` (0600), making the key on the first start."""
    if not path.exists():
        files.create_secret(path, base64.b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n")
    return Vault(*_read_keys(path))


def _read_keys(path: Path) -> tuple[bytes, tuple[bytes, ...]]:
    """The first line is the current key, the others are retired ones."""
    if path.stat().st_mode & 0o077:
        raise Unavailable(f"{path} can be read by others", code="KeyExposed", hint=f"chmod 600 {path}")
    keys = [base64.b64decode(line) for line in path.read_bytes().split()]
    if not keys or any(len(key) != _KEY_BYTES for key in keys):
        raise Unavailable(f"{path} does not hold keys of {_KEY_BYTES} bytes", hint="restore it from the backup")
    return keys[0], tuple(keys[1:])


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"minuet vault key id" + key).hexdigest()[:12]


def _encrypt(key: AESGCM, data: bytes, context: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + key.encrypt(nonce, data, context)


def _decrypt(key: AESGCM, data: bytes, context: bytes) -> bytes:
    return key.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], context)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
