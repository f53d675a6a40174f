"""Every question is answered: whole, however long the answer is and however late it is read, or with an error."""

import asyncio
import hashlib
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from minuet.agent.drivers.process.driver import ProcessDriver
from minuet.kernel.errors import Unavailable
from minuet.launcher import client, requests, wire
from minuet.launcher.client import Launcher
from tests.given.runtime import Installation, eventually, ready

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
LAYERS = 4000
LINES, ASKED = 20, 40


@pytest.mark.root
@needs_root
async def test_an_answer_larger_than_the_sockets_buffer_arrives(given: Installation) -> None:
    names = {hashlib.sha256(str(number).encode()).hexdigest() for number in range(LAYERS)}
    for name in names:
        (given.plane / "artifacts/layers" / name).mkdir()
    slow = asked_of(given.data / "launcher/sockets/agent.sock", requests.encode(requests.ListLayers()))
    # Whoever is answered after the slow one knows that the launcher has dealt with its question.
    await given.client().instances()
    (answer,) = await read_from(slow, 1)
    assert set(answer["layers"]) == {f"sha256:{name}" for name in names}


@pytest.mark.root
@needs_root
async def test_a_shim_keeps_its_answers_for_a_reader_that_is_slow(given: Installation) -> None:
    driver = await ProcessDriver.open(given.client(), given.plane)
    talks = f"i=0; while [ $i -lt {LINES} ]; do echo {'x' * 400}; i=$((i+1)); done; exec sleep 60"
    await driver.start(await given.spec(command=talks, routes=(), ports=()))
    await ready(driver)
    path = given.plane / "instances/one/s"

    async def tail() -> int:
        return len((await read_from(asked_of(path, {"ask": "tail"}), 1))[0]["tail"])

    await eventually(lambda: is_full(tail))
    slow = asked_of(path, *[{"ask": "tail"}] * ASKED)
    await tail()
    answers = await read_from(slow, ASKED)
    assert all(len(answer["tail"]) == LINES for answer in answers)
    await driver.close()


async def is_full(tail: Callable[[], Awaitable[int]]) -> bool:
    return await tail() == LINES


def asked_of(path: Path, *questions: wire.Message) -> socket.socket:
    """A connection over which everything has been asked and nothing read."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(path))
    connection.sendall(b"".join(wire.encode(question) for question in questions))
    connection.setblocking(False)
    return connection


async def read_from(connection: socket.socket, count: int) -> list[wire.Message]:
    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=wire.MAX_MESSAGE)
    async with asyncio.timeout(5):
        answers = [json.loads(await reader.readline()) for _ in range(count)]
    writer.close()
    return answers


async def test_a_launcher_that_does_not_answer_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_ANSWER_SECONDS", 0.05)
    silent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    silent.bind(str(tmp_path / "s"))
    silent.listen()
    with pytest.raises(Unavailable, match="did not answer ListInstances"):
        await Launcher(tmp_path / "s").instances()
    silent.close()


def test_a_stop_is_waited_for_beyond_its_grace_and_a_change_for_ever() -> None:
    assert (client.patience(requests.StopInstance("one", 600.0)) or 0) > 600.0
    assert client.patience(requests.ListRoles(after=3)) is None
    assert client.patience(requests.ListRoles()) is not None
