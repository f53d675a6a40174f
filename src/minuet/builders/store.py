"""The content-addressed store: manifests, layers and bills of material, each under its digest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from minuet.infra.files import write_atomically, write_secret
from minuet.kernel.canonical import canonical_json, digest_of
from minuet.kernel.errors import MinuetError, invalid_field
from minuet.protocol import signing

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Store:
    """Blobs below a directory, the builder's signing key beside them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        for name in ("blobs", "cache", "manifests"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        for left in (directory / "blobs").glob(".new-*"):
            left.unlink()
        self.signer = signing.Signer(self._key())

    def path(self, digest: str) -> Path:
        """Where a blob lies or would lie; raises `Invalid` for what is no digest."""
        if not _DIGEST.fullmatch(digest):
            raise invalid_field("digest", "must be sha256: and 64 hexadecimal digits", given=digest)
        return self._directory / "blobs" / digest.removeprefix("sha256:")

    def has(self, digest: str) -> bool:
        return self.path(digest).exists()

    def put(self, data: bytes) -> str:
        """Stores bytes durably; returns their digest."""
        digest = digest_of(data)
        if not self.has(digest):
            write_atomically(self.path(digest), data, mode=0o640)
        return digest

    def put_manifest(self, data: bytes) -> str:
        """Stores an artifact's manifest: what it names is kept for as long as it is there."""
        digest = self.put(data)
        (self._directory / "manifests" / digest.removeprefix("sha256:")).touch()
        return digest

    def put_written(self, write: Callable[[IO[bytes]], None]) -> tuple[str, int]:
        """Stores what `write` writes, without holding it in memory; returns digest and size."""
        descriptor, name = tempfile.mkstemp(dir=self._directory / "blobs", prefix=".new-")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                hashing = _Hashing(file)
                write(cast("IO[bytes]", hashing))
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o640)
            digest = f"sha256:{hashing.digest.hexdigest()}"
            temporary.replace(self.path(digest))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return digest, hashing.size

    def cached(self, key: str) -> dict[str, Any] | None:
        """What was remembered under a key, if the blob it names is still there as a whole."""
        try:
            entry: dict[str, Any] = json.loads((self._directory / "cache" / f"{key}.json").read_text())
            whole = self.path(entry["digest"]).stat().st_size == entry["size"]
        except (OSError, ValueError, LookupError, TypeError, MinuetError):
            return None
        if not whole:
            return None
        os.utime(self._directory / "cache" / f"{key}.json")
        return entry

    def remember(self, key: str, entry: dict[str, Any]) -> None:
        """Remembers a layer under the hash of what it was made from."""
        write_atomically(self._directory / "cache" / f"{key}.json", canonical_json(entry), mode=0o600)

    def prune(self, limit: int) -> int:
        """Forgets the layers that were used longest ago until those that no artifact names fit; returns the bytes.

        What a manifest names is never removed.
        """
        named = self._named()
        entries = sorted((self._directory / "cache").glob("*.json"), key=lambda path: -path.stat().st_mtime)
        kept, removed = 0, 0
        seen: set[str] = set()
        for entry in entries:
            digest = self._blob_of(entry)
            if digest is None:
                entry.unlink()
                continue
            if digest in named or digest in seen:
                continue
            seen.add(digest)
            path = self.path(digest)
            size = path.stat().st_size if path.exists() else 0
            if kept + size <= limit:
                kept += size
                continue
            entry.unlink()
            path.unlink(missing_ok=True)
            removed += size
        return removed

    def _blob_of(self, entry: Path) -> str | None:
        """The blob that a cache entry names; None for an entry that is damaged."""
        try:
            digest: str = json.loads(entry.read_bytes())["digest"]
            return digest if self.path(digest) else None
        except (OSError, ValueError, LookupError, TypeError, MinuetError):
            return None

    def _named(self) -> set[str]:
        found: set[str] = set()
        for marker in (self._directory / "manifests").iterdir():
            document = json.loads(self.path(f"sha256:{marker.name}").read_bytes())
            found |= {layer["digest"] for layer in document["layers"]} | {document["sbom"]}
        return found

    def _key(self) -> bytes:
        path = self._directory / "signing.key"
        if not path.exists():
            write_secret(path, signing.new_signing_key())
        return path.read_bytes()


class _Hashing:
    """A file for writing that knows the digest and size of what went through."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._file.flush()
