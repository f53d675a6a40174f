"""What every driver promises, over each of them: instances in memory, and processes of a real launcher."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from minuet.agent.drivers.memory import MemoryDriver
from minuet.agent.drivers.port import Driver, InstanceSpec, InstanceState
from minuet.agent.drivers.process import ProcessDriver
from minuet.kernel.retry import GiveUp, Retry
from minuet.protocol.desired import Artifact, MountedFile
from minuet.protocol.observed import InstancePhase
from tests.given.artifact_store import Store, serving
from tests.given.documents import workload
from tests.given.runtime import SERVER, installation

KEY = "cmp_1/env_1"
SECONDS = 20.0


@dataclass
class Host:
    """A driver with the commands that make an application serve, exit and keep silent there, and what it refuses."""

    driver: Driver
    store: Store
    serve: str
    exits: str
    silent: str
    refused: dict[str, Any]

    def artifact(self, note: str = "") -> Artifact:
        return self.store.artifact({"server.py": SERVER, "note": note})

    async def spec(
        self, name: str = "one", command: str | None = None, artifact: Artifact | None = None
    ) -> InstanceSpec:
        fetched = artifact or self.artifact()
        layers = await self.driver.ensure_artifact(fetched)
        return InstanceSpec(name, workload(command=command or self.serve, artifact=fetched), layers)

    async def start(self, name: str = "one", **changes: str) -> InstanceSpec:
        spec = await self.spec(name, **changes)
        await self.driver.start(spec)
        return spec

    async def state(self, name: str = "one") -> InstanceState | None:
        return next((state for state in await self.driver.observe() if state.id == name), None)

    async def seen(self, holds: Callable[[InstanceState], bool], name: str = "one") -> InstanceState:
        """Waits, by the driver's own news, until an instance is seen so."""
        state = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                while True:
                    state = await self.state(name)
                    if state is not None and holds(state):
                        return state
                    await self.driver.changed()
        raise AssertionError(f"not seen in {SECONDS} s, but {state}")

    async def ready(self, name: str = "one") -> InstanceState:
        return await self.seen(lambda state: state.ready, name)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with serving() as made:
        yield made


_ROOT = (pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root"))


@pytest.fixture(params=["memory", pytest.param("process", marks=_ROOT)])
async def host(request: pytest.FixtureRequest, store: Store) -> AsyncIterator[Host]:
    if request.param == "memory":
        yield Host(MemoryDriver(), store, "serve", "exit", "hang", {"command": "refuse"})
        return
    async with installation() as given:
        refused = {"files": (MountedFile(path="not/absolute", content=""),)}
        driver = await ProcessDriver.open(given.client(), given.plane)
        yield Host(driver, store, "exec python3 -S server.py 0.0.0.0", "exit 3", "exec sleep 60", refused)
        await driver.close()


async def test_a_started_instance_becomes_ready_and_says_what_it_is_of(host: Host) -> None:
    spec = await host.start()
    state = await host.ready()
    assert (state.workload_key, state.template, state.generation) == (KEY, spec.workload.template, 1)
    assert (state.phase, state.restarts) == (InstancePhase.RUNNING, 0)
    assert state.address


async def test_starting_an_instance_that_exists_changes_nothing(host: Host) -> None:
    spec = await host.start()
    first = await host.ready()
    await host.driver.start(spec)
    assert await host.driver.observe() == (first,)


async def test_instances_have_addresses_of_their_own(host: Host) -> None:
    await host.start("one")
    await host.start("two")
    assert (await host.ready("one")).address != (await host.ready("two")).address


async def test_an_application_that_exits_is_started_again_and_counted(host: Host) -> None:
    await host.start(command=host.exits)
    state = await host.seen(lambda state: state.restarts >= 2 and state.reason is not None)
    assert not state.ready
    assert state.exit_code


async def test_an_application_that_never_listens_is_told_apart_from_one_that_is_ready(host: Host) -> None:
    await host.start(command=host.silent)
    state = await host.seen(lambda state: state.reason == "NotListening")
    assert (state.phase, state.ready) == (InstancePhase.RUNNING, False)


async def test_a_stopped_instance_is_there_until_it_is_removed(host: Host) -> None:
    await host.start()
    await host.ready()
    for _ in range(2):
        await host.driver.stop("one", 1.0)
    state = await host.seen(lambda state: state.phase is InstancePhase.STOPPED)
    assert not state.ready
    for _ in range(2):
        await host.driver.remove("one")
    assert await host.driver.observe() == ()


async def test_ending_what_does_not_exist_does_nothing(host: Host) -> None:
    await host.driver.stop("nobody", 1.0)
    await host.driver.remove("nobody")
    await host.driver.forget("nobody/env_1")
    assert await host.driver.observe() == ()


async def test_the_name_of_a_removed_instance_can_be_given_again(host: Host) -> None:
    spec = await host.start()
    await host.ready()
    await host.driver.stop("one", 1.0)
    await host.driver.remove("one")
    await host.driver.start(spec)
    assert (await host.ready()).restarts == 0


async def test_whatever_happens_to_an_instance_is_news(host: Host) -> None:
    await host.driver.observe()
    waiting = asyncio.create_task(host.driver.changed())
    await host.start()
    await asyncio.wait_for(waiting, SECONDS)
    await host.ready()
    waiting = asyncio.create_task(host.driver.changed())
    await host.driver.stop("one", 1.0)
    await asyncio.wait_for(waiting, SECONDS)


async def test_ensuring_an_artifact_again_gives_the_same_layers(host: Host) -> None:
    artifact = host.artifact()
    layers = await host.driver.ensure_artifact(artifact)
    assert [target for _, target in layers] == ["/app"]
    assert await host.driver.ensure_artifact(artifact) == layers


async def test_an_artifact_that_was_pruned_has_to_be_ensured_before_the_next_start(host: Host) -> None:
    kept, pruned = host.artifact("kept"), host.artifact("pruned")
    specs = [await host.spec(name, artifact=item) for name, item in (("one", kept), ("two", pruned))]
    await host.driver.prune_artifacts(frozenset({kept.digest}))
    await host.driver.start(specs[0])
    with pytest.raises(Retry) as caught:
        await host.driver.start(specs[1])
    assert caught.value.code == "LayerMissing"
    await host.driver.ensure_artifact(pruned)
    await host.driver.start(specs[1])
    assert (await host.ready("two")).ready


async def test_pruning_spares_the_layers_of_what_exists(host: Host) -> None:
    spec = await host.start()
    await host.ready()
    await host.driver.prune_artifacts(frozenset())
    await host.driver.start(InstanceSpec("two", spec.workload, spec.layers))
    assert (await host.ready("two")).ready


async def test_a_start_that_is_refused_raises_and_leaves_nothing(host: Host) -> None:
    spec = await host.spec()
    spec = replace(spec, workload=spec.workload.model_copy(update=host.refused))
    with pytest.raises(GiveUp) as caught:
        await host.driver.start(spec)
    assert caught.value.reason == "StartFailed"
    assert await host.driver.observe() == ()
