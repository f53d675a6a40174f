"""Artifacts come over real HTTP, are verified before they are unpacked, and are kept for a way back."""

import hashlib
import http.server
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from minuet.agent.drivers.process import ProcessDriver
from minuet.kernel.canonical import digest_of
from minuet.kernel.retry import GiveUp, Retry
from minuet.protocol.desired import Artifact, Layer
from minuet.protocol.signing import Signer, new_signing_key
from tests.given.runtime import Installation, get, ready, tar_of

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


class Store:
    """A store of layers that wants a ticket; `tamper` changes what it serves."""

    def __init__(self) -> None:
        self.signer = Signer(new_signing_key())
        self.layers: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.url = ""

    def artifact(self, files: dict[str, str], **changes: object) -> Artifact:
        tar = tar_of(files)
        digest = f"sha256:{hashlib.sha256(tar).hexdigest()}"
        self.layers[digest] = tar
        manifest = json.dumps({"layers": [{"digest": digest, "size": len(tar), "target": "/app"}]})
        fields: dict[str, object] = {
            "digest": digest_of(manifest.encode()), "manifest": manifest, "signature": self.signer.sign(manifest.encode()),
            "public_key": self.signer.public_key, "store": self.url, "ticket": "ticket-1",
            "layers": (Layer(digest=digest, size=len(tar), target="/app"),),
        }  # fmt: skip
        return Artifact.model_validate(fields | changes)


@pytest.fixture
def store() -> Iterator[Store]:
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
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


async def test_an_artifact_is_fetched_once_and_runs(given: Installation, driver: ProcessDriver, store: Store) -> None:
    spec = await given.spec()
    files = {"server.py": (spec.layers[0][0] / "server.py").read_text(), "note": "from the store"}
    artifact = store.artifact(files)
    layers = await driver.ensure_artifact(artifact)
    assert await driver.ensure_artifact(artifact) == layers
    assert len(store.asked) == 1
    await driver.start(replace(spec, layers=layers))
    assert await get(str((await ready(driver)).address), "/file//app/note") == "from the store"


async def test_what_is_not_genuine_is_given_up_before_it_is_fetched(driver: ProcessDriver, store: Store) -> None:
    stranger = Signer(new_signing_key())
    good = store.artifact({"a": "a"})
    bad = (
        good.model_copy(update={"signature": stranger.sign(good.manifest.encode())}),
        good.model_copy(update={"digest": "sha256:" + "0" * 64}),
        good.model_copy(update={"layers": (Layer(digest="sha256:" + "0" * 64, size=1, target="/app"),)}),
    )
    for artifact in bad:
        with pytest.raises(GiveUp) as refused:
            await driver.ensure_artifact(artifact)
        assert refused.value.reason == "ArtifactCorrupt"
    assert store.asked == []


async def test_a_layer_that_arrives_changed_is_given_up(driver: ProcessDriver, store: Store) -> None:
    artifact = store.artifact({"a": "a"})
    digest = artifact.layers[0].digest
    for tampered in (store.layers[digest][:-1] + b"x", store.layers[digest] + b"more"):
        store.layers[digest] = tampered
        with pytest.raises(GiveUp) as refused:
            await driver.ensure_artifact(artifact)
        assert refused.value.reason == "ArtifactCorrupt"


async def test_a_refused_ticket_is_given_up_and_a_silent_store_retried(driver: ProcessDriver, store: Store) -> None:
    with pytest.raises(GiveUp) as refused:
        await driver.ensure_artifact(store.artifact({"a": "a"}, ticket="other"))
    assert refused.value.reason == "ArtifactUnavailable"
    with pytest.raises(Retry):
        await driver.ensure_artifact(store.artifact({"b": "b"}, store="http://127.0.0.1:1"))


async def test_pruning_keeps_what_is_named_and_the_last_three(
    given: Installation, driver: ProcessDriver, store: Store
) -> None:
    made = [store.artifact({"a": str(number)}) for number in range(6)]
    for artifact in made:
        await driver.ensure_artifact(artifact)
    await driver.prune_artifacts(frozenset({made[0].digest}))
    kept = await given.client().layers()
    assert kept == {artifact.layers[0].digest for artifact in (made[0], *made[3:])}


async def test_a_forgotten_workload_leaves_no_file(given: Installation, driver: ProcessDriver) -> None:
    await driver.start(await given.spec())
    await ready(driver)
    await driver.stop("one", 0.5)
    await driver.remove("one")
    await driver.forget("cmp_1/env_1")
    left = [path for path in Path(given.plane).rglob("*") if "cmp_1" in path.name or path.name == "one"]
    assert left == []
    assert await driver.observe() == ()
