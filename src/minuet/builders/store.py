"""The content-addressed store: manifests, layers and bills of material, each under its digest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, Any, cast

from minuet.infra.files import write_atomically, write_secret
from minuet.kernel.canonical import canonical_json, digest_of
from minuet.kernel.errors import Exhausted, MinuetError, invalid_field
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

    def put_manifest(self, data: bytes, build: str) -> str:
        """Stores an artifact's manifest: what it names is kept for as long as one of its builds is held."""
        digest = self.put(data)
        with (self._directory / "manifests" / digest.removeprefix("sha256:")).open("a") as marker:
            marker.write(f"{build}\n")
        return digest

    def builds(self) -> frozenset[str]:
        """The builds whose artifacts are kept."""
        return frozenset(build for marker in self._markers() for build in marker.read_text().split())

    def release(self, builds: Collection[str], before: float) -> int:
        """Lets go of the artifacts of which all builds are among these and none was made since `before`.

        Their blobs go with them, except for what another artifact or the cache names; returns how many.
        """
        released = 0
        for marker in self._markers():
            made_by = marker.read_text().split()
            if made_by and set(made_by) <= set(builds) and marker.stat().st_mtime < before:
                self._release(marker)
                released += 1
        return released

    def _release(self, marker: Path) -> None:
        manifest = self.path(f"sha256:{marker.name}")
        own = self._layers_of(manifest)
        marker.unlink()
        manifest.unlink(missing_ok=True)
        remembered = {self._blob_of(entry) for entry in (self._directory / "cache").glob("*.json")}
        for digest in own - self._named() - remembered:
            self.path(digest).unlink(missing_ok=True)

    def _markers(self) -> list[Path]:
        return sorted((self._directory / "manifests").iterdir())

    def put_written(
        self, write: Callable[[IO[bytes]], None], limit: int, proceed: Callable[[], object] = lambda: None
    ) -> tuple[str, int]:
        """Stores what `write` writes, without holding it in memory; returns digest and size.

        Raises `Exhausted` for more than `limit` bytes, whatever they take on the
        disk they come from, and what `proceed` raises, which is asked again and again.
        """
        descriptor, name = tempfile.mkstemp(dir=self._directory / "blobs", prefix=".new-")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                hashing = _Hashing(file, limit, proceed)
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
        """The blobs that are named by a manifest that is kept."""
        found: set[str] = set()
        for marker in self._markers():
            found |= self._layers_of(self.path(f"sha256:{marker.name}"))
        return found

    def _layers_of(self, manifest: Path) -> set[str]:
        document = json.loads(manifest.read_bytes())
        return {layer["digest"] for layer in document["layers"]} | {document["sbom"]}

    def _key(self) -> bytes:
        path = self._directory / "signing.key"
        if not path.exists():
            write_secret(path, signing.new_signing_key())
        return path.read_bytes()


class _Hashing:
    """A file for writing that knows the digest and size of what went through, and when that is too much."""

    def __init__(self, file: IO[bytes], limit: int, proceed: Callable[[], object]) -> None:
        self._file = file
        self._limit = limit
        self._proceed = proceed
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        if self.size + len(data) > self._limit:
            raise Exhausted(f"more than {self._limit // 2**20} MiB", code="TooLarge")
        self._proceed()
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._file.flush()
