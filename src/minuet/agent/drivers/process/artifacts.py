"""Fetches artifacts from a builder's store and keeps them unpacked: verified first, unpacked second.

The driver calls `ensure` before it starts an instance. Layers are shared by
digest among releases; what the last few releases need is kept for a quick way back.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from pathlib import Path

import httpx2

from minuet.infra import http
from minuet.kernel.canonical import digest_of
from minuet.kernel.errors import Exhausted, Forbidden, Invalid, MinuetError
from minuet.kernel.retry import GiveUp, Retry
from minuet.launcher.client import Launcher
from minuet.protocol import signing
from minuet.protocol.desired import Artifact, Layer

KEPT_BESIDES = 3
"""Artifacts kept although nothing runs them, newest first: the way back of the last releases."""

_RETRY_SECONDS = 2.0
_FULL_SECONDS = 30.0
_CHUNK = 256 * 1024


class ArtifactKeeper:
    """What is unpacked on this machine, and what for."""

    def __init__(self, launcher: Launcher, plane: Path) -> None:
        self._launcher = launcher
        self._layers = plane / "artifacts" / "layers"
        self._records = plane / "process" / "artifacts"
        self._downloads = plane / "process" / "downloads"
        self._locks: dict[str, asyncio.Lock] = {}

    def open(self) -> None:
        """Makes the folders and removes downloads that a crash cut short."""
        self._records.mkdir(parents=True, exist_ok=True)
        self._downloads.mkdir(exist_ok=True)
        for left in self._downloads.iterdir():
            left.unlink()

    async def ensure(self, artifact: Artifact) -> tuple[tuple[Path, str], ...]:
        """Returns each layer's folder and target; raises `Retry` or `GiveUp`."""
        check(artifact)
        for layer in artifact.layers:
            lock = self._locks.setdefault(layer.digest, asyncio.Lock())
            async with lock:
                await self._ensure_layer(artifact, layer)
            self._locks.pop(layer.digest, None)
        record = {"layers": [layer.digest for layer in artifact.layers], "used": time.time()}
        self._record_of(artifact.digest).write_text(json.dumps(record), encoding="utf-8")
        return tuple((self._folder(layer.digest), layer.target) for layer in artifact.layers)

    async def prune(self, keep: frozenset[str]) -> None:
        """Removes what neither `keep` nor the most recent others need."""
        records = {path.stem: json.loads(path.read_bytes()) for path in self._records.glob("*.json")}
        names = {digest.removeprefix("sha256:") for digest in keep}
        others = sorted((name for name in records if name not in names), key=lambda name: -records[name]["used"])
        kept = names | set(others[:KEPT_BESIDES])
        needed = {digest for name, record in records.items() if name in kept for digest in record["layers"]}
        for name in records.keys() - kept:
            (self._records / f"{name}.json").unlink(missing_ok=True)
        for digest in await self._launcher.layers() - needed - self._locks.keys():
            try:
                await self._launcher.remove_layer(digest)
            except MinuetError:
                continue

    async def _ensure_layer(self, artifact: Artifact, layer: Layer) -> None:
        try:
            if layer.digest in await self._launcher.layers():
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
                await self._launcher.unpack(fd, layer.digest)
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
            raise Retry(f"the layer cannot be written: {error}", _FULL_SECONDS) from error
        if f"sha256:{digest.hexdigest()}" != layer.digest:
            raise GiveUp("ArtifactCorrupt", f"A layer arrived with digest sha256:{digest.hexdigest()}.")

    def _folder(self, digest: str) -> Path:
        return self._layers / digest.removeprefix("sha256:")

    def _record_of(self, digest: str) -> Path:
        return self._records / f"{digest.removeprefix('sha256:')}.json"


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
