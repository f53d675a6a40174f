"""The launcher's roles: who may ask what, clean starts, restarts, survival, and an end without remains."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import minuet
from minuet.kernel.errors import Forbidden, NotFound
from minuet.launcher.client import Role
from tests.given.runtime import Installation, eventually, installation

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

ROLE = """
import os, pathlib, sys, time
role, settings = sys.argv[1], pathlib.Path(sys.argv[3])
print(role, os.getuid(), settings.read_text().strip(), sorted(os.environ), flush=True)
while (settings.parent / "noisy").exists() or role == "noisy": print("x" * 1000)
time.sleep(1000)
"""


@pytest.fixture
async def given(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    """A copy of the code whose command line starts a stand-in for each role."""
    source = tmp_path_factory.mktemp("src", numbered=True)
    shutil.copytree(Path(minuet.__file__).parent, source / "minuet", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "minuet/__main__.py").write_text(ROLE)
    source.chmod(0o755)
    async with installation(source) as made:
        for role in ("server", "gateway"):
            (made.data / role / "settings.toml").write_text(f"# of {role}\n")
            (made.data / role / "settings.toml").chmod(0o600)
        yield made


async def only(given: Installation) -> Role:
    (role,) = await given.client("supervisor").roles()
    return role


async def test_a_role_runs_under_its_uid_with_a_clean_environment(given: Installation) -> None:
    role = await given.client("supervisor").start_role("server")
    log = given.data / "server/log"

    async def said() -> str:
        """What it said once it has said a whole line."""
        text = log.read_text() if log.exists() else ""
        return text if text.endswith("\n") else ""

    assert (await eventually(said)).startswith("server 300001 # of server ['HOME', 'LANG'")
    assert "SECRET" not in await said()
    assert (await given.client("supervisor").start_role("server")).pid == role.pid
    await given.client("supervisor").stop_role("server", 2.0)
    assert not Path(f"/proc/{role.pid}").exists()


async def test_a_role_that_dies_is_started_again_and_the_change_is_told(given: Installation) -> None:
    supervisor = given.client("supervisor")
    role = await supervisor.start_role("server")
    changes = supervisor.role_changes()
    await anext(changes)
    os.kill(role.pid or 0, signal.SIGKILL)
    async with asyncio.timeout(5):
        async for roles in changes:
            if roles[0].pid not in (None, role.pid):
                break
    assert (roles[0].restarts, roles[0].exit_code) == (1, -9)


async def test_a_role_survives_the_launcher_and_is_found_again(given: Installation) -> None:
    role = await given.client("supervisor").start_role("server")
    given.kill()
    assert Path(f"/proc/{role.pid}").exists()
    await given.start()
    assert (await only(given)).pid == role.pid
    os.kill(role.pid or 0, signal.SIGKILL)

    async def again() -> bool:
        return (await only(given)).pid not in (None, role.pid)

    await eventually(again)


async def test_a_roles_log_is_bounded(given: Installation) -> None:
    given.kill()
    with (given.data / "launcher/settings.toml").open("a") as file:
        file.write("role_log_bytes = 200000\n")
    (given.data / "server/noisy").touch()
    await given.start()
    await given.client("supervisor").start_role("server")
    older = given.data / "server/log.1"

    async def rotated() -> bool:
        return older.exists() and older.stat().st_size > 0

    await eventually(rotated)
    await given.client("supervisor").stop_role("server", 0.0)
    assert older.stat().st_size <= 200_000


async def test_the_agent_may_start_the_gateway_and_nothing_else(given: Installation) -> None:
    role = await given.client("agent").start_gateway()
    assert role.pid
    with pytest.raises(Forbidden):
        await given.client("agent").start_role("server")
    with pytest.raises(Forbidden):
        await given.client("builder").start_role("gateway")
    with pytest.raises(Forbidden):
        await given.client("agent").shutdown()


async def test_a_role_without_settings_is_not_started(given: Installation) -> None:
    with pytest.raises(NotFound):
        await given.client("supervisor").start_role("builder")


async def test_a_socket_belongs_to_its_role_alone(given: Installation) -> None:
    folder = given.data / "launcher/sockets"
    owners = {path.name: (path.stat().st_uid, path.stat().st_mode & 0o777) for path in folder.iterdir()}
    assert owners == {
        "agent.sock": (300003, 0o600), "builder.sock": (300002, 0o600), "supervisor.sock": (0, 0o600),
    }  # fmt: skip


async def test_shutdown_leaves_no_process_no_device_and_no_group(given: Installation) -> None:
    supervisor = given.client("supervisor")
    role = await supervisor.start_role("server")
    given_tag = (given.data / "launcher/installation.json").read_text().partition('"tag": "')[2][:4]
    await given.shut_down()
    assert not Path(f"/proc/{role.pid}").exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/minuet-{given_tag}"))
    assert not list(Path("/sys/class/net").glob(f"mn{given_tag}*"))
