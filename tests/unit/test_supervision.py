"""What the supervisor decides and keeps: choices, ports, logs, and a watch that outlives its own defects."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from pathlib import Path

import pytest

from minuet.kernel.errors import Conflict, Forbidden, Invalid
from minuet.launcher import wire
from minuet.server import detached, doctor, installation, lock, own_logs, ports, roles
from minuet.server.embedded import Supervisor
from minuet.server.installation import Installation


async def test_a_defect_of_the_watch_is_told_and_kept_and_does_not_end_it(tmp_path: Path) -> None:
    sockets = tmp_path / "launcher" / "sockets"
    sockets.mkdir(parents=True)
    told: list[str] = []
    asked = 0

    async def answer_nonsense(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.write(wire.encode({"nonsense": True}))
        await writer.drain()

    server = await asyncio.start_unix_server(answer_nonsense, sockets / "supervisor.sock")
    watching = asyncio.create_task(Supervisor(tmp_path, Installation(), told.append).watch())
    async with asyncio.timeout(30):
        while asked < 2:
            await asyncio.sleep(0.01)
    assert not watching.done()
    assert "a defect of the supervisor (KeyError" in told[0]
    assert "Traceback" in (tmp_path / own_logs.SUPERVISOR).read_text()
    watching.cancel()
    server.close()


def test_its_own_logs_are_kept_short_with_the_newest_lines_aside(tmp_path: Path) -> None:
    (tmp_path / "launcher").mkdir()
    log = tmp_path / own_logs.LAUNCHER
    with log.open("ab") as writer:
        writer.write(b"old\n" * 100 + b"new\n")
        writer.flush()
        own_logs.keep_short(tmp_path, limit=200)
        writer.write(b"later\n")
    assert log.read_text() == "later\n"
    aside = (tmp_path / "launcher" / "log.1").read_text()
    assert len(aside) == 200
    assert aside.endswith("new\n")
    assert own_logs.last_line(log) == "later"
    assert own_logs.last_line(tmp_path / "none") == "it says nothing"


def test_a_port_that_somebody_holds_is_named_with_its_flag() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Conflict, match=f"127.0.0.1:{port}") as caught:
            ports.check_free(Installation(gateway_port=port))
    assert caught.value.code == "PortTaken"
    assert "--gateway-port" in (caught.value.hint or "")


def test_an_address_of_another_machine_is_told_as_such() -> None:
    assert "assign" in str(ports.obstacle("203.0.113.7", 8400))
    with pytest.raises(Invalid, match="is not an address"):
        ports.obstacle("no such host.invalid", 8400)


def test_the_domain_is_chosen_once(tmp_path: Path) -> None:
    installation.save(tmp_path, installation.load(tmp_path, {"domain": "apps.example.com"}))
    assert installation.load(tmp_path, {"domain": "apps.example.com"}).domain == "apps.example.com"
    with pytest.raises(Invalid, match="first start") as caught:
        installation.load(tmp_path, {"domain": "other.example.com"})
    assert caught.value.violations[0].allowed == ("apps.example.com",)


def test_choices_reach_the_settings_of_the_roles(tmp_path: Path) -> None:
    for role in ("launcher", "server", "builder", "agent", "gateway"):
        (tmp_path / role).mkdir()
    (tmp_path / "server" / "tls").mkdir()
    (tmp_path / "server" / "tls" / "fingerprint").write_text("ab" * 32 + "\n")
    chosen = Installation(listen="10.0.0.1", gateway_address="10.0.0.1", gateway_url="https://apps.example.com")
    assert roles.write_first(tmp_path, chosen) == {"launcher", "server", "gateway"}
    assert roles.write_second(tmp_path, chosen) == {"builder", "agent"}
    agent = (tmp_path / "agent" / "settings.toml").read_text()
    assert f'fingerprint = "{"ab" * 32}"' in agent
    assert 'servers = ["https://10.0.0.1:8400"]' in agent
    assert 'gateway_url = "https://apps.example.com"' in agent
    assert 'host = "10.0.0.1"' in (tmp_path / "server" / "settings.toml").read_text()
    assert roles.write_first(tmp_path, chosen) | roles.write_second(tmp_path, chosen) == frozenset()
    other = installation.Installation(listen="10.0.0.1", gateway_address="10.0.0.1", gateway_port=9480)
    assert roles.write_second(tmp_path, other) == {"agent"}, "only what is told something new starts anew"


def test_every_choice_is_handed_to_the_supervisor_that_is_started_in_the_background() -> None:
    given = {"api_port": 9000, "listen": None, "gateway_url": "http://x", "allow_local_repositories": False}
    assert detached.arguments_of(given) == [
        "--api-port", "9000", "--gateway-url", "http://x", "--refuse-local-repositories",
    ]  # fmt: skip


def test_a_second_supervisor_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    with lock.sole_supervisor(tmp_path):
        pid = lock.holder(tmp_path)
        with pytest.raises(Conflict, match=str(pid)) as caught, lock.sole_supervisor(tmp_path):
            pass
    assert caught.value.code == "AlreadyRunning"
    assert lock.holder(tmp_path) is None


def test_doctor_looks_at_ports_and_honours_the_class_that_was_asked_for(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        installation.save(tmp_path, Installation(builder_port=other.getsockname()[1], isolation="none"))
        findings = {finding.what: finding for finding in doctor.examine(tmp_path)}
    assert findings["port of --builder-port"].fine is False
    assert "class `none` would be in force" in findings["isolation"].detail
    assert "ssh" in findings


def test_doctor_tells_settings_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / installation.FILE).write_text("api_prot = 1\n")
    first = doctor.examine(tmp_path)[0]
    assert (first.what, first.fine) == ("settings", False)
    assert "api_port" in first.detail + first.help


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_the_platform_of_another_user_is_told_as_such(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as theirs:
        child = os.fork()
        if child == 0:
            os.setresuid(65534, 65534, 65534)
            try:
                lock.end(tmp_path, theirs.pid, 1.0)
            except Forbidden as error:
                os._exit(0 if error.code == "NotYours" else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert theirs.poll() is None
        theirs.kill()
