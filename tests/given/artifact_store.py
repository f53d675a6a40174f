"""A builder's store of layers, over real HTTP, and a shelf that keeps layers in memory instead of a launcher."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from minuet.kernel.canonical import digest_of
from minuet.kernel.errors import MinuetError
from minuet.protocol.desired import Artifact, Layer
from minuet.protocol.signing import Signer, new_signing_key
from tests.given.runtime import tar_of


class Store:
    """A store of layers that wants a ticket; `asked` are the paths that were asked for."""

    def __init__(self) -> None:
        self.signer = Signer(new_signing_key())
        self.layers: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.url = ""

    def artifact(self, *layers: dict[str, str], **changes: object) -> Artifact:
        """Makes an artifact with a layer for each of these sets of files."""
        made = tuple(self._layer(files) for files in layers)
        manifest = json.dumps({"layers": [layer.model_dump() for layer in made]})
        fields: dict[str, object] = {
            "digest": digest_of(manifest.encode()), "manifest": manifest, "signature": self.signer.sign(manifest.encode()),
            "public_key": self.signer.public_key, "store": self.url, "ticket": "ticket-1", "layers": made,
        }  # fmt: skip
        return Artifact.model_validate(fields | changes)

    def _layer(self, files: dict[str, str]) -> Layer:
        tar = tar_of(files)
        digest = f"sha256:{hashlib.sha256(tar).hexdigest()}"
        self.layers[digest] = tar
        return Layer(digest=digest, size=len(tar), target="/app")


@contextlib.contextmanager
def serving() -> Iterator[Store]:
    """Yields a store that answers on loopback."""
    made = Store()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            body = made.layers.get(self.path.removeprefix("/artifacts/"))
            allowed = self.headers["Authorization"] == "Bearer ticket-1"
            self.send_response(403 if not allowed else 404 if body is None else 200)
            self.end_headers()
            if allowed and body is not None:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


class MemoryShelf:
    """Keeps layers in memory. Each step of an operation is a moment at which something else may happen."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.trouble: MinuetError | None = None
        self.moments = 0
        self.at: dict[int, Callable[[], None]] = {}

    async def layers(self) -> frozenset[str]:
        await self._moment()
        found = frozenset(self.held)
        await self._moment()
        return found

    async def unpack(self, tar: int, digest: str) -> Path:
        content = os.pread(tar, 1 << 20, 0)
        await self._moment()
        self.held[digest] = content
        await self._moment()
        return Path(digest)

    async def remove_layer(self, digest: str) -> None:
        await self._moment()
        self.held.pop(digest, None)
        await self._moment()

    async def _moment(self) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.moments += 1
        if happens := self.at.pop(self.moments, None):
            happens()
        for _ in range(3):
            await asyncio.sleep(0)
