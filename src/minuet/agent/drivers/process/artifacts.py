"""Fetches artifacts from a builder's store and keeps them unpacked: verified first, unpacked second.

The driver calls `ensure` before it starts an instance, and `prune` when what is
to be kept changed; both may run at once. Layers are shared by digest among
artifacts.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

import httpx2

from minuet.infra import files, http
from minuet.kernel.canonical import digest_of
from minuet.kernel.errors import Exhausted, Forbidden, Invalid, MinuetError
from minuet.kernel.retry import GiveUp, Retry
from minuet.protocol import signing
from minuet.protocol.desired import Artifact, Layer

_RETRY_SECONDS = 2.0
_FULL_SECONDS = 30.0
_CHUNK = 256 * 1024


class Shelf(Protocol):
    """Who unpacks layers and removes them; the launcher. Digests with their algorithm."""

    async def layers(self) -> frozenset[str]:
        """Those that are unpacked."""

    async def unpack(self, tar: int, digest: str) -> Path:
        """Unpacks a verified tar; nothing of it is seen before all of it is there."""

    async def remove_layer(self, digest: str) -> None:
        """Removes one; refuses while an instance uses it."""


class ArtifactKeeper:
    """What is unpacked on this machine, and what for."""

    def __init__(self, shelf: Shelf, plane: Path) -> None:
        self._shelf = shelf
        self._layers = plane / "artifacts" / "layers"
        self._records = plane / "process" / "artifacts"
        self._downloads = plane / "process" / "downloads"
        self._needed: dict[str, frozenset[str]] = {}
        self._wanted: Counter[str] = Counter()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def open(self) -> None:
        """Makes the folders, reads the records, and removes what a crash cut short."""
        self._records.mkdir(parents=True, exist_ok=True)
        self._downloads.mkdir(exist_ok=True)
        for left in (*self._downloads.iterdir(), *self._records.glob(".*.new")):
            left.unlink()
        self._needed = dict(filter(None, map(_read_record, self._records.glob("*.json"))))

    async def ensure(self, artifact: Artifact) -> tuple[tuple[Path, str], ...]:
        """Returns each layer's folder and target; raises `Retry` or `GiveUp`."""
        check(artifact)
        digests = [layer.digest for layer in artifact.layers]
        # Until the record names them, this count alone says that somebody needs the layers.
        self._wanted.update(digests)
        try:
            for layer in artifact.layers:
                async with self._lock(layer.digest):
                    await self._ensure_layer(artifact, layer)
            self._record(artifact.digest, digests)
        finally:
            self._wanted.subtract(digests)
            self._wanted = +self._wanted
        return tuple((self._folder(layer.digest), layer.target) for layer in artifact.layers)

    async def prune(self, keep: frozenset[str]) -> None:
        """Removes the artifacts other than these digests, and the layers that nobody needs then.

        Raises `Retry` when the launcher does not say what there is.
        """
        for digest in self._needed.keys() - keep:
            del self._needed[digest]
            self._record_of(digest).unlink(missing_ok=True)
        try:
            present = await self._shelf.layers()
        except MinuetError as error:
            raise Retry(error.message, _RETRY_SECONDS) from error
        for layer in sorted(layer for layer in present if not self._is_needed(layer)):
            # Looked at anew for each one under its lock: an artifact may have begun to need it meanwhile.
            async with self._lock(layer):
                if not self._is_needed(layer):
                    await self._remove(layer)

    def _lock(self, layer: str) -> asyncio.Lock:
        """One layer is either ensured or removed; the lock lives as long as somebody holds or waits for it."""
        return self._locks.setdefault(layer, asyncio.Lock())

    def _is_needed(self, layer: str) -> bool:
        return self._wanted[layer] > 0 or any(layer in layers for layers in self._needed.values())

    async def _remove(self, layer: str) -> None:
        try:
            await self._shelf.remove_layer(layer)
        except MinuetError:
            return  # an instance still uses it, or the launcher is away; a later round removes it

    def _record(self, digest: str, layers: list[str]) -> None:
        try:
            files.write_atomically(self._record_of(digest), json.dumps({"layers": layers}).encode())
        except OSError as error:
            raise _unwritable(error, "the artifact's record") from error
        self._needed[digest] = frozenset(layers)

    async def _ensure_layer(self, artifact: Artifact, layer: Layer) -> None:
        try:
            if layer.digest in await self._shelf.layers():
                return
            await self._fetch_and_unpack(artifact, layer)
        except (Invalid, Forbidden) as error:
            raise GiveUp("ArtifactCorrupt", error.message) from error
        except Exhausted as error:
            if error.code == "DiskFull":
                raise Retry(error.message, _FULL_SECONDS) from error
            raise GiveUp("ArtifactCorrupt", error.message) from error
        except MinuetError as error:
            raise Retry(error.message, _RETRY_SECONDS) from error

    async def _fetch_and_unpack(self, artifact: Artifact, layer: Layer) -> None:
        path = self._downloads / f"{layer.digest.removeprefix('sha256:')[:32]}-{os.getpid()}"
        try:
            await self._fetch(artifact, layer, path)
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                await self._shelf.unpack(fd, layer.digest)
            finally:
                os.close(fd)
        finally:
            path.unlink(missing_ok=True)

    async def _fetch(self, artifact: Artifact, layer: Layer, path: Path) -> None:
        """Writes the layer to a file; what is larger than announced or has another digest is refused."""
        url = f"{artifact.store.rstrip('/')}/artifacts/{layer.digest}"
        digest, size = hashlib.sha256(), 0
        try:
            async with (
                http.client(fingerprint=artifact.fingerprint) as client,
                client.stream("GET", url, headers={"Authorization": f"Bearer {artifact.ticket}"}) as response,
            ):
                _check_status(response.status_code)
                with path.open("wb") as file:
                    async for data in response.aiter_raw(_CHUNK):
                        digest.update(data)
                        size += len(data)
                        if size > layer.size:
                            raise GiveUp("ArtifactCorrupt", f"A layer is larger than the {layer.size} bytes announced.")
                        file.write(data)
        except httpx2.HTTPError as error:
            raise Retry(f"the artifact store does not answer: {error}", _RETRY_SECONDS) from error
        except OSError as error:
            raise _unwritable(error, "the layer") from error
        if f"sha256:{digest.hexdigest()}" != layer.digest:
            raise GiveUp("ArtifactCorrupt", f"A layer arrived with digest sha256:{digest.hexdigest()}.")

    def _folder(self, digest: str) -> Path:
        return self._layers / digest.removeprefix("sha256:")

    def _record_of(self, digest: str) -> Path:
        return self._records / f"{digest.removeprefix('sha256:')}.json"


def _read_record(path: Path) -> tuple[str, frozenset[str]] | None:
    """What an artifact needs; a record that is torn is removed, which costs at most another download."""
    try:
        content = json.loads(path.read_bytes())
        return f"sha256:{path.stem}", frozenset(map(str, content["layers"]))
    except (OSError, ValueError, KeyError, TypeError):
        path.unlink(missing_ok=True)
        return None


def _unwritable(error: OSError, what: str) -> Retry:
    code = "DiskFull" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
    return Retry(f"{what} cannot be written: {error.strerror or error}", _FULL_SECONDS, code)


def check(artifact: Artifact) -> None:
    """Digest and signature of the manifest, and that it names every layer; raises `GiveUp`."""
    manifest = artifact.manifest.encode()
    if digest_of(manifest) != artifact.digest:
        raise GiveUp("ArtifactCorrupt", "The manifest does not have the artifact's digest.")
    try:
        signing.verify(artifact.public_key, manifest, artifact.signature)
        named = {layer["digest"] for layer in json.loads(manifest)["layers"]}
    except Forbidden as error:
        raise GiveUp("ArtifactCorrupt", "The manifest's signature is not genuine.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise GiveUp("ArtifactCorrupt", "The manifest is not readable.") from error
    strange = [layer.digest for layer in artifact.layers if layer.digest not in named]
    if strange:
        raise GiveUp("ArtifactCorrupt", f"The manifest does not name layer {strange[0]}.")


def _check_status(status: int) -> None:
    if status in (401, 403):
        raise GiveUp("ArtifactUnavailable", f"The artifact store refused the ticket (status {status}).")
    if status in (404, 410):
        raise GiveUp("ArtifactUnavailable", "The artifact store does not have it any more; build again.")
    if status != 200:  # noqa: PLR2004 - OK
        raise Retry(f"the artifact store answered {status}", _RETRY_SECONDS)
