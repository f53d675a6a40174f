"""The launcher as it runs where there is nothing of Linux: no class of isolation, and that is told; the rest works."""

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import minuet
from minuet import system
from minuet.agent.drivers.process.driver import ProcessDriver
from minuet.kernel.errors import Unavailable
from minuet.launcher.client import Mount, SandboxCommand
from tests.given.runtime import Installation, get, installation, ready, seen

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")]
PORT = 21078
NOBODY = 65534


@pytest.fixture
async def given() -> AsyncIterator[Installation]:
    """A launcher that runs as nobody and by the portable ways, on a copy of the code that nobody may read."""
    source = Path(tempfile.mkdtemp(prefix="mn-src-", dir="/tmp"))
    source.chmod(0o755)
    shutil.copytree(Path(minuet.__file__).parent, source / "minuet", ignore=shutil.ignore_patterns("__pycache__"))
    async with installation(source, user=NOBODY, portable=True) as made:
        yield made
    shutil.rmtree(source)


async def test_an_application_runs_is_started_again_and_outlives_the_launcher(given: Installation) -> None:
    driver = await ProcessDriver.open(given.client(), given.plane)
    assert driver.isolation == "none"
    assert "only trusted code may run" in (await given.client().isolation())["missing"][0]
    await driver.start(await given.spec(command="exec python3 -S server.py 127.0.0.1 $PORT", ports=(PORT,), routes=()))
    real = (await ready(driver)).ports[PORT]
    assert await get("127.0.0.1", port=real) == "hello"

    given.kill()
    assert await get("127.0.0.1", port=real) == "hello"
    await given.start()
    await driver.close()
    driver = await ProcessDriver.open(given.client(), given.plane)
    state = await ready(driver)

    os.kill(application_at(real), signal.SIGKILL)
    await seen(driver, lambda now: now.restarts > state.restarts and now.ready)
    assert await get("127.0.0.1", port=real) == "hello"
    await driver.stop("one", 1.0)
    await seen(driver, lambda now: now.phase.value == "Stopped")
    await driver.close()


def application_at(port: int) -> int:
    """The process that was started to listen at a port."""
    words = ("server.py", "127.0.0.1", str(port))
    return next(item.pid for item in system.processes() if item.words[-3:] == words)


async def test_a_build_is_refused_with_what_is_missing(given: Installation) -> None:
    builder = given.client("builder")
    workspace = await builder.make_workspace("org_1")
    mount = Mount(str(workspace), str(workspace), writable=True)
    command = SandboxCommand("build:org_1", ("/bin/true",), str(workspace), (mount,), seconds=30.0)
    with pytest.raises(Unavailable, match="nothing can be built here"):
        await builder.run(command)
