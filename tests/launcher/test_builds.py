"""Commands in a sandbox for the builder: what they reach, what limits them, what is told of their end."""

import asyncio
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from minuet.builders.logs import BuildLog
from minuet.builders.workshop import Workshop
from minuet.kernel.errors import Exhausted, Forbidden
from minuet.launcher.client import Exit, Mount, SandboxCommand
from minuet.protocol.building import BuildLimits
from tests.given.runtime import Installation, eventually

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

MIB = 1024 * 1024


def shell(script: str, *mounts: Mount, **changes: object) -> SandboxCommand:
    command = SandboxCommand("build:org_1", ("/bin/sh", "-c", script), mounts[0].target if mounts else "/tmp", mounts)
    return replace(command, **changes)  # type: ignore[arg-type]


def outside(given: Installation, path: Path) -> Path:
    """The launcher names paths as its own processes see them."""
    return given.data / path.relative_to("/run/minuet/data")


async def run(given: Installation, command: SandboxCommand) -> tuple[str, Exit]:
    async with asyncio.timeout(20), await given.client("builder").run(command) as running:
        said = b"".join([data async for data in running.output])
        return said.decode(), await running.wait()


async def test_a_command_writes_into_its_workspace_and_the_builder_may_delete_it(given: Installation) -> None:
    builder = given.client("builder")
    workspace = await builder.make_workspace("org_1")
    script = "id -u; umask; mkdir -m 0700 inner; echo made > inner/file; chmod 0600 inner/file"
    said, ended = await run(given, shell(script, Mount(str(workspace), "/work", writable=True)))
    assert (said.split(), ended.code) == (["10001", "0007"], 0)
    made = outside(given, workspace) / "inner/file"
    assert made.read_text() == "made\n"
    group = outside(given, workspace).stat().st_gid
    assert made.stat().st_gid == group
    assert made.stat().st_mode & 0o060 == 0o060
    assert made.parent.stat().st_mode & 0o070 == 0o070
    await builder.remove_workspace(workspace)
    assert not outside(given, workspace).exists()


async def test_exit_code_and_both_streams_are_told(given: Installation) -> None:
    said, ended = await run(given, shell("echo out; echo err >&2; exit 7"))
    assert sorted(said.split()) == ["err", "out"]
    assert (ended.code, ended.signal) == (7, None)


async def test_input_and_output_pass_through_when_given(given: Installation) -> None:
    there, back = os.pipe(), os.pipe()
    os.write(there[1], b"through")
    os.close(there[1])
    running = await given.client("builder").run(shell("cat; echo aside >&2"), stdin=there[0], stdout=back[1])
    for fd in (there[0], back[1]):
        os.close(fd)
    aside = b"".join([data async for data in running.output])
    assert (await running.wait()).code == 0
    assert (os.read(back[0], 100), aside) == (b"through", b"aside\n")
    os.close(back[0])


async def test_too_much_memory_is_told(given: Installation) -> None:
    hog = "exec python3 -S -c 'x=[]\nwhile 1: x.append(bytearray(1<<20))'"
    _, ended = await run(given, shell(hog, memory=64 * MIB))
    assert ended.out_of_memory
    assert ended.code == 137
    assert 32 * MIB < ended.peak_memory <= 65 * MIB


async def test_too_long_is_told(given: Installation) -> None:
    _, ended = await run(given, shell("sleep 60 & sleep 60", seconds=0.5))
    assert ended.timed_out
    assert ended.seconds < 5


async def test_too_much_disk_is_told(given: Installation) -> None:
    workspace = await given.client("builder").make_workspace("org_1")
    script = "for i in 1 2 3 4 5 6 7 8; do dd if=/dev/zero of=f$i bs=1M count=15 2>/dev/null; done; sleep 60"
    mount = Mount(str(workspace), "/work", writable=True)
    _, ended = await run(given, shell(script, mount, disk=20 * MIB, seconds=15.0))
    assert ended.disk_full
    assert not ended.timed_out


@pytest.mark.parametrize(
    "writes",
    ["for i in 1 2; do dd if=/dev/zero of=f$i bs=1M count=15; done", "truncate -s 15M f1 f2", "mkdir -m 0 d; true"],
)
async def test_what_a_short_command_wrote_is_counted_at_its_end(given: Installation, writes: str) -> None:
    workspace = await given.client("builder").make_workspace("org_1")
    _, ended = await run(given, shell(writes, Mount(str(workspace), "/work", writable=True), disk=20 * MIB))
    assert (ended.code, ended.disk_full) == (0, not writes.startswith("mkdir"))


async def test_a_workspace_of_any_depth_is_measured_and_removed(given: Installation) -> None:
    builder = given.client("builder")
    workspace = await builder.make_workspace("org_1")
    dig = (
        "import os\nfor _ in range(1100): os.mkdir('deep'); os.chdir('deep')\nopen('file', 'wb').write(bytes(1 << 20))"
    )
    command = replace(
        shell("", Mount(str(workspace), "/work", writable=True), disk=MIB), argv=("/usr/bin/python3", "-S", "-c", dig)
    )
    _, ended = await run(given, command)
    assert ended.disk_full
    await builder.remove_workspace(workspace)
    assert not outside(given, workspace).exists()


async def test_a_fork_bomb_in_a_build_is_bounded(given: Installation) -> None:
    bomb = "exec python3 -S -c 'import os\nwhile 1: os.fork()'"
    _, ended = await run(given, shell(bomb, processes=30, seconds=3.0))
    assert ended.code != 0


async def test_killing_ends_every_process(given: Installation) -> None:
    running = await given.client("builder").run(shell("sleep 61 & sleep 61 & echo up; wait"))
    output = running.output
    assert await anext(output) == b"up\n"
    await running.kill()
    ended = await running.wait()
    assert ended.killed

    async def gone() -> bool:
        return not [path for path in Path("/proc").glob("[0-9]*/cmdline") if reads(path) == b"sleep\00061\0"]

    await eventually(gone)


async def test_a_builder_that_goes_away_kills_its_command(given: Installation) -> None:
    running = await given.client("builder").run(shell("exec sleep 62"))
    await running.__aexit__()

    async def gone() -> bool:
        return not [path for path in Path("/proc").glob("[0-9]*/cmdline") if reads(path) == b"sleep\00062\0"]

    await eventually(gone)


async def test_a_build_reaches_the_listener_and_nothing_else(given: Installation) -> None:
    host = socket.create_server(("127.0.0.1", 0))
    script = f"""exec python3 -S -c '
import socket
def dial(address, port):
    try:
        s = socket.create_connection((address, port), 2); s.sendall(b"ping"); return s.recv(10).decode()
    except OSError as error: return type(error).__name__
print(dial("127.0.0.1", 3128))
print(dial("127.0.0.1", {host.getsockname()[1]}))
print(dial("192.0.2.1", 80))
'"""
    async with asyncio.timeout(20):
        running = await given.client("builder").run(shell(script, network="proxy"))
        assert running.proxy_listener is not None
        loop = asyncio.get_running_loop()
        connection, _ = await loop.sock_accept(running.proxy_listener)
        assert await loop.sock_recv(connection, 10) == b"ping"
        await loop.sock_sendall(connection, b"pong")
        connection.close()
        said = b"".join([data async for data in running.output]).decode().split()
        assert (await running.wait()).code == 0
    host.close()
    assert said == ["pong", "ConnectionRefusedError", "OSError"]


async def test_a_build_sees_nothing_of_the_platform(given: Installation) -> None:
    secret = given.data / "server/secret"
    secret.write_text("platform")
    script = (
        f"cat {secret} /run/minuet/data/launcher/sealing.key; ls /run /home /root; env; ls /proc | grep -c '^[0-9]'"
    )
    said, _ = await run(given, shell(script, env={"MINE": "1"}))
    assert "platform" not in said
    assert "PYTHONPATH" not in said
    assert "MINE=1" in said
    assert int(said.split()[-1]) <= 5


async def test_a_build_of_another_organization_has_another_uid(given: Installation) -> None:
    builder = given.client("builder")
    first, second = await builder.make_workspace("org_1"), await builder.make_workspace("org_2")
    assert outside(given, first).stat().st_uid != outside(given, second).stat().st_uid
    _, ended = await run(given, shell("ls /work", Mount(str(second), "/work")))
    assert ended.code != 0


async def test_a_build_may_not_be_shown_the_platforms_files(given: Installation) -> None:
    with pytest.raises(Forbidden):
        await given.client("builder").run(shell("true", Mount("/run/minuet/data/launcher", "/work")))


async def test_a_build_waits_for_room_and_conversations_take_none_from_it(given: Installation, tmp_path: Path) -> None:
    builder = given.client("builder")
    talks = [await builder.run(shell("exec sleep 63", conversation=True)) for _ in range(17)]
    works = [await builder.run(shell("exec sleep 63")) for _ in range(16)]
    with pytest.raises(Exhausted) as refused:
        await builder.run(shell("true"))
    assert refused.value.code == "TooManyCommands"
    log = BuildLog(tmp_path / "log", MIB, ())
    workshop = Workshop(builder, "org_1", tmp_path, log, BuildLimits(seconds=20.0))
    waiting = asyncio.create_task(workshop.run(("/bin/echo", "at last"), mounts=(), cwd="/", listen=True))
    with pytest.raises(Exhausted):
        await builder.run(shell("true"))
    assert not waiting.done()
    await works[0].kill()
    assert (await waiting).output == "at last\n"
    log.close()
    for running in (*talks, *works):
        await running.kill()


def reads(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
