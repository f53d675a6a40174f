"""Ensuring and pruning at once: whatever the order, what is needed stays and what is not goes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from minuet.agent.drivers.process.artifacts import ArtifactKeeper
from minuet.kernel.errors import Unavailable
from minuet.kernel.retry import Retry
from tests.given.artifact_store import MemoryShelf, Store, serving

MOMENTS = 12
"""As many as an artifact of two layers has: to list, to list, and to unpack, each with a beginning and an end."""


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with serving() as made:
        yield made


@pytest.fixture
def shelf() -> MemoryShelf:
    return MemoryShelf()


@pytest.fixture
def keeper(tmp_path: Path, shelf: MemoryShelf) -> ArtifactKeeper:
    return opened(tmp_path, shelf)


def opened(directory: Path, shelf: MemoryShelf) -> ArtifactKeeper:
    keeper = ArtifactKeeper(shelf, directory)
    keeper.open()
    return keeper


@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
async def test_a_pruning_at_any_moment_of_a_fetch_spares_its_layers(
    keeper: ArtifactKeeper, shelf: MemoryShelf, store: Store, moment: int
) -> None:
    left, fresh = store.artifact({"a": "old"}), store.artifact({"a": "one"}, {"a": "two"})
    await keeper.ensure(left)
    pruning: list[asyncio.Task[None]] = []
    keep = frozenset({fresh.digest})
    shelf.at[shelf.moments + moment] = lambda: pruning.append(asyncio.create_task(keeper.prune(keep)))
    await keeper.ensure(fresh)
    while shelf.at:
        await shelf.layers()
    await asyncio.gather(*pruning)
    assert len(pruning) == 1
    assert set(shelf.held) == {layer.digest for layer in fresh.layers}


@pytest.mark.parametrize("moment", range(1, 7))
async def test_a_fetch_at_any_moment_of_a_pruning_ends_with_its_layers(
    keeper: ArtifactKeeper, shelf: MemoryShelf, store: Store, moment: int
) -> None:
    again = store.artifact({"a": "one"}, {"a": "two"})
    await keeper.ensure(again)
    fetching: list[asyncio.Task[object]] = []
    shelf.at[shelf.moments + moment] = lambda: fetching.append(asyncio.create_task(keeper.ensure(again)))
    await keeper.prune(frozenset())
    await asyncio.gather(*fetching)
    assert len(fetching) == 1
    assert set(shelf.held) == {layer.digest for layer in again.layers}
    await keeper.prune(frozenset({again.digest}))
    assert set(shelf.held) == {layer.digest for layer in again.layers}


async def test_layers_that_another_artifact_shares_stay(
    keeper: ArtifactKeeper, shelf: MemoryShelf, store: Store
) -> None:
    shared = {"a": "shared"}
    one, two = store.artifact(shared, {"a": "one"}), store.artifact(shared, {"a": "two"})
    for artifact in (one, two):
        await keeper.ensure(artifact)
    await keeper.prune(frozenset({two.digest}))
    assert set(shelf.held) == {layer.digest for layer in two.layers}


async def test_what_is_kept_is_known_after_a_restart(tmp_path: Path, shelf: MemoryShelf, store: Store) -> None:
    one, two = store.artifact({"a": "one"}), store.artifact({"a": "two"})
    for artifact in (one, two):
        await opened(tmp_path, shelf).ensure(artifact)
    await opened(tmp_path, shelf).prune(frozenset({one.digest}))
    assert set(shelf.held) == {one.layers[0].digest}


async def test_a_torn_record_stops_no_pruning_and_its_artifact_is_fetched_again(
    tmp_path: Path, shelf: MemoryShelf, store: Store
) -> None:
    one, two = store.artifact({"a": "one"}), store.artifact({"a": "two"})
    for artifact in (one, two):
        await opened(tmp_path, shelf).ensure(artifact)
    record = tmp_path / "process/artifacts" / f"{one.digest[7:]}.json"
    record.write_text(record.read_text()[:10])
    keeper = opened(tmp_path, shelf)
    await keeper.prune(frozenset({one.digest, two.digest}))
    assert set(shelf.held) == {two.layers[0].digest}
    await keeper.ensure(one)
    assert set(shelf.held) == {one.layers[0].digest, two.layers[0].digest}


async def test_a_launcher_that_is_away_puts_pruning_off(
    keeper: ArtifactKeeper, shelf: MemoryShelf, store: Store
) -> None:
    await keeper.ensure(store.artifact({"a": "one"}))
    shelf.trouble = Unavailable("the launcher does not answer", code="LauncherUnavailable")
    with pytest.raises(Retry):
        await keeper.prune(frozenset())
    shelf.trouble = None
    await keeper.prune(frozenset())
    assert not shelf.held
