"""Artifacts come over real HTTP, are verified before they are unpacked, and are kept for a way back."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from minuet.agent.drivers.process import ProcessDriver
from minuet.kernel.retry import GiveUp, Retry
from minuet.protocol.desired import Layer
from minuet.protocol.signing import Signer, new_signing_key
from tests.given.artifact_store import Store, serving
from tests.given.runtime import Installation, get, ready

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def store() -> Iterator[Store]:
    with serving() as made:
        yield made


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


async def test_pruning_keeps_what_is_named_and_what_runs(
    given: Installation, driver: ProcessDriver, store: Store
) -> None:
    spec = await given.spec()
    await driver.start(spec)
    made = [store.artifact({"a": str(number)}) for number in range(3)]
    for artifact in made:
        await driver.ensure_artifact(artifact)
    await driver.prune_artifacts(frozenset({made[0].digest}))
    running = f"sha256:{spec.layers[0][0].name}"
    assert await given.client().layers() == {made[0].layers[0].digest, running}


async def test_a_forgotten_workload_leaves_no_file(given: Installation, driver: ProcessDriver) -> None:
    await driver.start(await given.spec())
    await ready(driver)
    await driver.stop("one", 0.5)
    await driver.remove("one")
    await driver.forget("cmp_1/env_1")
    left = [path for path in Path(given.plane).rglob("*") if "cmp_1" in path.name or path.name == "one"]
    assert left == []
    assert await driver.observe() == ()
