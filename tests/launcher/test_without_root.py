"""Without root: one uid and the machine's network; trees of their own where bubblewrap works, Landlock elsewhere."""

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import minuet
from minuet.agent.drivers.process.driver import ProcessDriver
from minuet.kernel.errors import Unavailable
from minuet.kernel.retry import GiveUp
from minuet.launcher import landlock, sandbox
from minuet.launcher.client import Mount, SandboxCommand
from minuet.protocol.desired import MountedFile
from minuet.protocol.observed import InstancePhase
from tests.given.runtime import SERVER, Installation, get, installation, ready, seen

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else"),
]
NOBODY = 65534
needs_bubblewrap = pytest.mark.skipif(not Path(sandbox.BWRAP).exists(), reason="bubblewrap is not installed")
needs_landlock = pytest.mark.skipif(landlock.version() == 0, reason="the kernel has no Landlock")


@pytest.fixture(scope="module")
def source() -> Iterator[Path]:
    """A copy of the code that everybody may read."""
    copy = Path(tempfile.mkdtemp(prefix="mn-src-", dir="/tmp"))
    copy.chmod(0o755)
    shutil.copytree(Path(minuet.__file__).parent, copy / "minuet", ignore=shutil.ignore_patterns("__pycache__"))
    yield copy
    shutil.rmtree(copy)


@pytest.fixture
async def given(source: Path) -> AsyncIterator[Installation]:
    async with installation(source, user=NOBODY) as made:
        yield made


@pytest.fixture
async def weak(source: Path) -> AsyncIterator[Installation]:
    async with installation(source, user=NOBODY, isolation="landlock") as made:
        yield made


@pytest.fixture
async def driver(given: Installation) -> AsyncIterator[ProcessDriver]:
    opened = await ProcessDriver.open(given.client(), given.plane)
    yield opened
    await opened.close()


async def served(driver: ProcessDriver, name: str = "one", path: str = "/") -> str:
    """What the instance answers at the place that the gateway dials."""
    location = (await ready(driver, name)).location
    assert location is not None
    return await get(location.address, path, location.port(8080))


@needs_bubblewrap
async def test_the_class_and_what_it_lacks_are_told(given: Installation) -> None:
    found = await given.client().isolation()
    assert (found["isolation"], found["builds"]) == ("host-network", "host-network")
    assert "not started as root" in found["missing"][0]
    assert any("$PORT" in sentence for sentence in found["missing"])


@needs_bubblewrap
async def test_instances_with_the_same_declared_port_do_not_collide(given: Installation, driver: ProcessDriver) -> None:
    for name in ("one", "two"):
        mounted = MountedFile(path="/app/conf/name.txt", content=name)
        spec = await given.spec(name, key=f"cmp_{name}/env_1")
        workload = spec.workload.model_copy(update={"files": (mounted,)})
        await driver.start(replace(spec, workload=workload))
    assert await served(driver, "one", "/file//app/conf/name.txt") == "one"
    assert await served(driver, "two", "/file//app/conf/name.txt") == "two"
    one, two = await ready(driver, "one"), await ready(driver, "two")
    assert one.isolation == "host-network"
    assert one.ports[8080] != two.ports[8080]
    assert await served(driver, "one", "/env/PORT_8080") == str(one.ports[8080])
    assert await served(driver, "one", f"/file/{given.data}/launcher/sealing.key") == ""


@needs_bubblewrap
async def test_what_another_process_answers_on_its_port_makes_no_instance_ready(
    given: Installation, driver: ProcessDriver
) -> None:
    answered = asyncio.Event()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        writer.close()
        answered.set()

    await driver.start(await given.spec(command="exec sleep 60"))
    (state,) = await driver.observe()
    stranger = await asyncio.start_server(answer, "127.0.0.1", state.ports[8080])
    async with stranger:
        await answered.wait()
        state = await seen(driver, lambda state: state.reason is not None)
    assert (state.ready, state.reason) == (False, "NotListening")


@needs_bubblewrap
async def test_an_application_that_ignores_port_is_told_to_listen_there(
    given: Installation, driver: ProcessDriver
) -> None:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        other = probe.getsockname()[1]
    await driver.start(await given.spec(command=f"exec python3 -S server.py 0.0.0.0 {other}"))
    state = await seen(driver, lambda state: state.reason == "ListensOnOtherPort")
    assert "must listen on $PORT" in (state.message or "")


@needs_bubblewrap
async def test_an_instance_keeps_its_port_over_restarts_of_all_that_holds_it(
    given: Installation, driver: ProcessDriver
) -> None:
    await driver.start(await given.spec())
    before = (await ready(driver)).ports
    await driver.close()
    (entry,) = await given.client().instances()
    given.kill()
    os.kill(entry["shim"], signal.SIGKILL)
    await given.start()
    second = await ProcessDriver.open(given.client(), given.plane)
    assert (await ready(second)).ports == before
    assert await served(second) == "hello"
    await second.stop("one", 1.0)
    await seen(second, lambda state: state.phase is InstancePhase.STOPPED)
    await second.close()


@needs_bubblewrap
async def test_a_command_has_a_tree_and_a_network_of_its_own(given: Installation) -> None:
    builder = given.client("builder")
    workspace = await builder.make_workspace("org_1")
    script = f"echo made > /workspace/file; cat {given.data}/launcher/sealing.key; cat /proc/net/dev"
    mount = Mount(str(workspace), "/workspace", writable=True)
    command = SandboxCommand("build:org_1", ("/bin/sh", "-c", script), "/workspace", (mount,), network="proxy")
    running = await builder.run(command)
    said = b"".join([data async for data in running.output])
    assert running.proxy_listener is not None
    assert (await running.wait()).code == 0
    assert b"No such file" in said
    assert said.count(b"lo:") == 1
    assert b"eth" not in said
    assert (workspace / "file").read_text() == "made\n"
    await builder.remove_workspace(workspace)


@needs_landlock
async def test_by_landlock_an_application_reads_only_its_own(weak: Installation) -> None:
    driver = await ProcessDriver.open(weak.client(), weak.plane)
    assert driver.isolation == "landlock"
    spec = await weak.spec(command="exec python3 -S server.py 127.0.0.1")
    await driver.start(spec)
    assert await served(driver) == "hello"
    secret = weak.data / "launcher/sealing.key"
    assert secret.stat().st_uid == NOBODY
    assert await served(driver, path=f"/file/{secret}") == ""
    own = weak.plane / "artifacts/layers" / spec.layers[0][0].name / "server.py"
    assert await served(driver, path=f"/file/{own}") == SERVER
    await driver.close()


@needs_landlock
async def test_by_landlock_a_mounted_file_is_refused_and_never_left_out_in_silence(weak: Installation) -> None:
    driver = await ProcessDriver.open(weak.client(), weak.plane)
    spec = await weak.spec()
    mounted = spec.workload.model_copy(update={"files": (MountedFile(path="/app/key", content="x"),)})
    with pytest.raises(GiveUp, match="cannot show /app/key"):
        await driver.start(replace(spec, workload=mounted))
    assert await weak.client().instances() == []
    await driver.close()


@needs_landlock
async def test_without_bubblewrap_builds_are_refused_and_the_reason_is_told(source: Path) -> None:
    module = source / "minuet/launcher/sandbox.py"
    whole = module.read_text()
    module.write_text(whole.replace(sandbox.BWRAP, "/nowhere/bwrap"))
    try:
        await refused(source)
    finally:
        module.write_text(whole)


async def refused(source: Path) -> None:
    async with installation(source, user=NOBODY) as given:
        found = await given.client().isolation()
        assert found["builds"] is None
        assert any("nothing can be built" in sentence for sentence in found["missing"])
        with pytest.raises(Unavailable, match="bwrap is not installed"):
            await given.client("builder").run(SandboxCommand("build:org_1", ("/bin/true",), "/"))
