"""The process driver over a real launcher: start, diagnosis, restarts, survival."""

import asyncio
import json
import os
import signal
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from minuet.agent.drivers.process.driver import ProcessDriver, order_of
from minuet.agent.model import Memory, Moment, View
from minuet.agent.plan import plan_workload
from minuet.kernel.errors import Invalid
from minuet.kernel.retry import GiveUp
from minuet.kernel.secrets import Secret
from minuet.protocol.desired import EnvironmentVariable, MountedFile, Probe, Resources, SealedValue
from minuet.protocol.observed import InstancePhase
from minuet.protocol.sealing import seal
from tests.given.runtime import SERVER, Installation, eventually, get, ready, seen

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

MIB = 1024 * 1024


async def test_a_started_application_answers_at_its_own_address(given: Installation, driver: ProcessDriver) -> None:
    await driver.start(await given.spec())
    state = await ready(driver)
    assert state.phase is InstancePhase.RUNNING
    assert state.isolation == "sandbox"
    assert state.address
    assert await get(state.address) == "hello"


async def test_an_application_is_seen_ready_soon_after_it_listens(given: Installation, driver: ProcessDriver) -> None:
    listens = "import socket,time,sys\ns=socket.socket();s.bind(('0.0.0.0',8080));s.listen()\nprint(time.time(),flush=True)\nwhile 1: s.accept()[0].sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n')"
    await driver.start(await given.spec(files={"a.py": listens}, command="exec python3 -S a.py"))
    await ready(driver)
    told = time.time()
    log = next((given.plane / "logs/cmp_1_env_1").iterdir()).read_text()
    since = float(log.partition('"message":"')[2].partition('"')[0])
    assert told - since < 0.1


async def test_starting_twice_runs_one_instance(given: Installation, driver: ProcessDriver) -> None:
    spec = await given.spec()
    await driver.start(spec)
    first = await ready(driver)
    await driver.start(spec)
    assert await driver.observe() == (first,)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("exec python3 -S server.py 127.0.0.1", "ListensOnLoopback"),
        ("exec python3 -S server.py 0.0.0.0 9999", "ListensOnOtherPort"),
        ("exec sleep 60", "NotListening"),
        ("echo no; exit 3", "CrashLoop"),
        ("exec does-not-exist", "ExitedAtOnce"),
    ],
)
async def test_what_is_wrong_is_told(given: Installation, driver: ProcessDriver, command: str, reason: str) -> None:
    await driver.start(await given.spec(command=command))
    state = await seen(driver, lambda state: state.reason == reason)
    assert not state.ready
    assert state.message


async def test_a_crash_loop_backs_off_and_shows_the_last_lines(given: Installation, driver: ProcessDriver) -> None:
    await driver.start(await given.spec(command="echo last words; exit 3"))
    state = await seen(driver, lambda state: state.reason == "CrashLoop")
    assert state.phase is InstancePhase.BACKOFF
    assert state.exit_code == 3
    assert "last words" in state.log_tail
    assert state.restarts < 20


async def test_too_much_memory_is_told_as_such(given: Installation, driver: ProcessDriver) -> None:
    hog = "x = []\nwhile True: x.append(bytearray(1024*1024))"
    limits = Resources(memory=64 * MIB)
    await driver.start(await given.spec(files={"a.py": hog}, command="exec python3 -S a.py", resources=limits))
    state = await seen(driver, lambda state: state.reason == "OutOfMemory")
    assert "64 MiB" in (state.message or "")


async def test_a_full_disk_is_told_as_such(given: Installation, driver: ProcessDriver) -> None:
    command = "dd if=/dev/zero of=/tmp/big bs=1M count=100; exit 1"
    await driver.start(await given.spec(command=command, resources=Resources(disk=8 * MIB)))
    assert (await seen(driver, lambda state: state.reason == "DiskFull")).exit_code == 1


async def test_a_failing_declared_probe_is_told_with_its_status(given: Installation, driver: ProcessDriver) -> None:
    bad = SERVER.replace("send_response(200)", "send_response(503)")
    probe = Probe(port=8080, path="/healthz")
    await driver.start(await given.spec(files={"server.py": bad}, health=probe))
    state = await seen(driver, lambda state: state.reason == "ProbeFailed")
    assert "503" in (state.message or "")


async def test_a_killed_application_runs_again_within_a_second(given: Installation, driver: ProcessDriver) -> None:
    await driver.start(await given.spec())
    await ready(driver)
    began = time.monotonic()
    os.kill(await application_of(given, driver), signal.SIGKILL)
    await seen(driver, lambda state: not state.ready)
    state = await ready(driver)
    assert time.monotonic() - began < 1.0
    assert state.restarts == 1


async def test_of_two_replicas_only_the_killed_one_loses_its_requests(
    given: Installation, driver: ProcessDriver
) -> None:
    for name in ("one", "two"):
        await driver.start(await given.spec(name, replicas=2))
    dead, alive = await ready(driver, "one"), await ready(driver, "two")
    record = json.loads((given.plane / "instances/one/state.json").read_text())
    began = time.monotonic()
    os.kill(record["application"]["pid"], signal.SIGKILL)
    await seen(driver, lambda state: not state.ready)
    assert time.monotonic() - began < 1.0
    document = (await given.spec(replicas=2)).workload
    view = View(document.key, document, False, Memory(document), await driver.observe())
    plan = plan_workload(view, Moment(datetime.now(UTC), 0.0))
    assert plan.routing is not None
    assert plan.routing.endpoints == (alive.location,)
    assert await get(str(alive.address)) == "hello"
    assert (await ready(driver, "one")).location == dead.location


async def test_an_instance_survives_launcher_and_driver_and_is_adopted(
    given: Installation, driver: ProcessDriver
) -> None:
    await driver.start(await given.spec())
    state = await ready(driver)
    before = await application_of(given, driver)
    await driver.close()
    given.kill()
    assert await get(str(state.address)) == "hello"
    await given.start()
    second = await ProcessDriver.open(given.client(), given.plane)
    adopted = await ready(second)
    assert (adopted.address, adopted.restarts, adopted.template) == (state.address, 0, state.template)
    assert await application_of(given, second) == before
    await second.stop("one", 1.0)
    await seen(second, lambda state: state.phase is InstancePhase.STOPPED)
    await second.close()


async def test_a_killed_shim_is_replaced_and_one_instance_runs(given: Installation, driver: ProcessDriver) -> None:
    await driver.start(await given.spec())
    await ready(driver)
    (entry,) = await given.client().instances()
    application = await application_of(given, driver)
    os.kill(entry["shim"], signal.SIGKILL)
    await seen(driver, lambda state: not state.ready)
    state = await ready(driver)
    assert not Path(f"/proc/{application}").exists()
    assert await get(str(state.address)) == "hello"
    assert len(members(given)) == 3  # bubblewrap, the sandbox's first process, the server


async def test_a_killed_shim_is_replaced_by_the_next_launcher(given: Installation, driver: ProcessDriver) -> None:
    await driver.start(await given.spec())
    await ready(driver)
    (entry,) = await given.client().instances()
    given.kill()
    os.kill(entry["shim"], signal.SIGKILL)
    await seen(driver, lambda state: not state.ready)
    await given.start()
    await ready(driver)


async def test_a_fork_bomb_is_bounded_and_can_be_stopped(given: Installation, driver: ProcessDriver) -> None:
    bomb = "import os\nwhile True:\n try: os.fork()\n except OSError: pass"
    limits = Resources(processes=40, cpu=0.3)
    await driver.start(await given.spec(files={"a.py": bomb}, command="exec python3 -S a.py", resources=limits))

    async def full() -> bool:
        return len(members(given)) >= 38

    await eventually(full)
    assert len(members(given)) <= 41
    await driver.stop("one", 0.2)
    assert members(given) == []


async def test_stopping_sends_term_first_and_then_kills(given: Installation, driver: ProcessDriver) -> None:
    polite = "import signal,sys,time\nsignal.signal(15,lambda *_:(print('goodbye',flush=True),sys.exit(0)))\nprint('up',flush=True)\nwhile 1: time.sleep(1)"
    await driver.start(
        await given.spec("one", {"a.py": polite}, command="python3 -S a.py; exit 0", routes=(), ports=())
    )
    await driver.start(
        await given.spec(
            "two", command="trap '' TERM; while true; do sleep 1; done", routes=(), ports=(), key="cmp_2/env_1"
        )
    )
    await ready(driver, "two")
    await seen(driver, lambda state: state.ready)

    async def up() -> bool:
        return "up" in log_of(given, "cmp_1_env_1")

    await eventually(up)
    await driver.stop("one", 5.0)
    assert "goodbye" in log_of(given, "cmp_1_env_1")
    began = time.monotonic()
    await driver.stop("two", 0.3)
    assert 0.3 <= time.monotonic() - began < 2.0
    states = {state.id: state.phase for state in await driver.observe()}
    assert states == {"one": InstancePhase.STOPPED, "two": InstancePhase.STOPPED}
    await driver.remove("one")
    assert not (given.plane / "instances/one").exists()


async def test_a_shim_that_dies_while_it_stops_ends_in_stopped(given: Installation, driver: ProcessDriver) -> None:
    stubborn = "trap '' TERM; while true; do sleep 0.1; done"
    await driver.start(await given.spec(command=stubborn, routes=(), ports=()))
    await ready(driver)
    stopping = asyncio.create_task(driver.stop("one", 60.0))
    await seen(driver, lambda state: state.phase is InstancePhase.STOPPING)
    (entry,) = await given.client().instances()
    os.kill(entry["shim"], signal.SIGKILL)
    await asyncio.wait_for(stopping, 10)
    await seen(driver, lambda state: state.phase is InstancePhase.STOPPED)
    assert members(given) == []
    await driver.stop("one", 60.0)
    news = asyncio.create_task(driver.changed())
    await asyncio.sleep(0)
    assert not news.done(), "a stop that changed nothing must be no news"
    news.cancel()
    await driver.remove("one")
    assert await driver.observe() == ()


async def test_secrets_reach_the_application_and_nothing_else(given: Installation, driver: ProcessDriver) -> None:
    canary = "canary-3f9a1c"
    public = (given.plane / "sealing.pub").read_text()

    def sealed(name: str) -> SealedValue:
        return SealedValue(version=1, ciphertext=seal(public, Secret(canary), f"cmp_1/env_1/{name}"))

    layer = await given.layer({"server.py": SERVER, "conf/base.txt": "base"})
    base = await given.spec(
        environment_variables=(EnvironmentVariable(name="TOKEN", sealed=sealed("TOKEN")),),
    )
    mounted = base.workload.model_copy(
        update={"files": (MountedFile(path="/app/conf/key.txt", sealed=sealed("/app/conf/key.txt")),)}
    )
    await driver.start(replace(base, workload=mounted, layers=(layer,)))
    state = await ready(driver)
    address = str(state.address)
    assert await get(address, "/env/TOKEN") == canary
    assert await get(address, "/file//app/conf/key.txt") == canary
    assert await get(address, "/file//app/conf/base.txt") == "base"
    server = await application_of(given, driver)
    found = [path for pid in members(given) if pid != server for path in readable(pid) if canary.encode() in path[1]]
    assert found == []
    assert canary.encode() not in Path(f"/proc/{server}/cmdline").read_bytes()
    for path in given.data.rglob("*"):
        if path.is_file():
            assert canary.encode() not in path.read_bytes(), path


async def test_a_secret_that_cannot_be_opened_is_given_up_and_leaves_nothing(
    given: Installation, driver: ProcessDriver
) -> None:
    wrong = EnvironmentVariable(name="TOKEN", sealed=SealedValue(version=1, ciphertext="bm90IGEgY2lwaGVydGV4dA=="))
    spec = await given.spec(environment_variables=(wrong,))
    with pytest.raises(GiveUp):
        await driver.start(spec)
    assert await given.client().instances() == []
    assert list((given.plane / "process/instances").iterdir()) == []
    with pytest.raises(Invalid):
        await given.client().start_instance(order_of(spec))

    async def settled() -> bool:
        (entry,) = await given.client().instances()
        return entry["shim"] is None

    await eventually(settled)
    (entry,) = await given.client().instances()
    assert not entry["wanted"], "a birth that was reported as failed must not be tried again unasked"
    await driver.forget(spec.workload.key)
    assert await given.client().instances() == []


async def test_an_opening_driver_removes_what_no_note_names(given: Installation, driver: ProcessDriver) -> None:
    await driver.start(await given.spec())
    await given.client().start_instance(order_of(await given.spec("two", key="cmp_2/env_1")))
    await driver.close()
    second = await ProcessDriver.open(given.client(), given.plane)
    assert [entry["id"] for entry in await given.client().instances()] == ["one"]
    assert await get(str((await ready(second)).address)) == "hello"
    await second.close()


def readable(pid: int) -> list[tuple[str, bytes]]:
    return [(f"/proc/{pid}/{name}", Path(f"/proc/{pid}/{name}").read_bytes()) for name in ("environ", "cmdline")]


def log_of(given: Installation, folder: str) -> str:
    return "".join(path.read_text() for path in sorted((given.plane / "logs" / folder).iterdir()))


def members(given: Installation) -> list[int]:
    """Every process in this installation's control groups."""
    tag = (given.data / "launcher/installation.json").read_text().partition('"tag": "')[2][:4]
    found: set[int] = set()
    for path in Path(f"/sys/fs/cgroup/pids/minuet-{tag}").glob("*/cgroup.procs"):
        found |= {int(word) for word in path.read_text().split()}
    return sorted(found)


async def application_of(given: Installation, driver: ProcessDriver) -> int:
    """The pid of the server itself: the child of the sandbox's first process."""

    async def look() -> int:
        for pid in members(given):
            if b"bwrap" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return 0

    return await eventually(look)
