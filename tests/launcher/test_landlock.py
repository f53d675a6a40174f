"""Without root: one uid, the machine's network, paths held by Landlock, and everything else as before."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import minuet
from minuet.agent.drivers.process.driver import ProcessDriver
from minuet.launcher import landlock
from minuet.launcher.client import Mount, SandboxCommand
from tests.given.runtime import SERVER, Installation, get, installation, ready, seen

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else"),
    pytest.mark.skipif(landlock.version() == 0, reason="the kernel has no Landlock"),
]
PORT = 21077
NOBODY = 65534


@pytest.fixture
async def given() -> AsyncIterator[Installation]:
    """A launcher that runs as nobody, on a copy of the code that nobody may read."""
    source = Path(tempfile.mkdtemp(prefix="mn-src-", dir="/tmp"))
    source.chmod(0o755)
    shutil.copytree(Path(minuet.__file__).parent, source / "minuet", ignore=shutil.ignore_patterns("__pycache__"))
    async with installation(source, user=NOBODY) as made:
        yield made
    shutil.rmtree(source)


async def test_an_application_runs_and_reads_only_its_own(given: Installation) -> None:
    driver = await ProcessDriver.open(given.client(), given.plane)
    assert driver.isolation == "landlock"
    spec = await given.spec(command=f"exec python3 -S server.py 127.0.0.1 {PORT}", ports=(PORT,), routes=())
    await driver.start(spec)
    state = await ready(driver)
    assert (state.address, state.isolation) == ("127.0.0.1", "landlock")
    assert await get("127.0.0.1", port=PORT) == "hello"
    secret = given.data / "launcher/sealing.key"
    assert secret.stat().st_uid == NOBODY
    assert await get("127.0.0.1", f"/file/{secret}", port=PORT) == ""
    own = given.plane / "artifacts/layers" / spec.layers[0][0].name / "server.py"
    assert await get("127.0.0.1", f"/file/{own}", port=PORT) == SERVER
    await driver.stop("one", 1.0)
    await seen(driver, lambda state: state.phase.value == "Stopped")
    await driver.close()


async def test_a_command_writes_into_its_workspace_only(given: Installation) -> None:
    builder = given.client("builder")
    workspace = await builder.make_workspace("org_1")
    script = (
        f"echo made > {workspace}/file; echo no > {given.data}/builder/escaped; cat {given.data}/launcher/sealing.key"
    )
    mount = Mount(str(workspace), str(workspace), writable=True)
    running = await builder.run(SandboxCommand("build:org_1", ("/bin/sh", "-c", script), str(workspace), (mount,)))
    said = b"".join([data async for data in running.output])
    assert (await running.wait()).code != 0
    assert said.count(b"Permission denied") == 2
    assert (workspace / "file").read_text() == "made\n"
    assert not (given.data / "builder/escaped").exists()
