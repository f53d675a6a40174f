"""The server as a process: first start, second start, second server, TLS, stop."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.given import servers
from tests.given.servers import Server


def refused(server: Server) -> str:
    server.process = None
    with pytest.raises(RuntimeError) as caught:
        server.start()
    assert "Traceback" not in str(caught.value)
    assert server.process is not None
    assert server.process.returncode == 1
    return str(caught.value)


@pytest.fixture
def started(tmp_path: Path):
    with servers.running(tmp_path / "server", servers.free_port()) as server:
        yield server


def test_the_first_start_makes_keys_and_credentials_that_are_private(started: Server) -> None:
    for name in (
        "owner.token",
        "keys/master.key",
        "keys/signing.key",
        "credentials/builder.token",
        "credentials/agent.token",
    ):
        file = started.data / name
        assert file.stat().st_mode & 0o777 == 0o600, name
    assert (started.data / "minuet.db").stat().st_mode & 0o077 == 0
    assert started.client().get("/me").json()["operator"] is True


def test_the_second_start_changes_nothing_and_an_owner_token_put_away_stays_away(started: Server) -> None:
    def everything() -> dict[str, bytes]:
        return {
            str(file): file.read_bytes()
            for file in sorted(started.data.rglob("*"))
            if file.suffix in (".token", ".key")
        }

    before, token = everything(), started.owner_token
    assert started.stop() == 0
    started.start()
    assert everything() == before
    (started.data / "owner.token").unlink()
    started.stop()
    started.start()
    assert not (started.data / "owner.token").exists()
    assert started.client(token).get("/me").status_code == 200


def test_a_lost_credential_of_a_neighbour_is_made_again_and_an_empty_one_voids_the_old_ones(started: Server) -> None:
    file = started.data / "credentials" / "agent.token"
    old = started.credential("agent")
    started.stop()
    file.unlink()
    started.start()
    second = started.credential("agent")
    assert [started.client(token).get("/me").json()["role"] for token in (old, second)] == ["agent", "agent"]
    started.stop()
    file.write_text("")
    started.start()
    assert [started.client(token).get("/me").status_code for token in (old, second)] == [401, 401]
    assert started.client(started.credential("agent")).get("/me").json()["role"] == "agent"


def test_a_database_without_its_keys_is_refused(started: Server) -> None:
    started.stop()
    (started.data / "keys" / "master.key").unlink()
    assert "master.key is missing" in refused(started)


def test_a_second_server_on_the_same_data_is_refused(started: Server) -> None:
    other = Server(started.data, servers.free_port())
    assert "another server uses" in refused(other)
    assert started.client().get("/me").status_code == 200
    started.process.poll()  # type: ignore[union-attr]


def test_a_database_of_a_newer_version_is_refused(started: Server) -> None:
    import sqlite3

    started.stop()
    with sqlite3.connect(started.data / "minuet.db") as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    assert "9999" in refused(started)


def test_settings_that_are_wrong_are_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[listen]\nprt = 1\n")
    command = [sys.executable, "-m", "minuet", "server", "--settings", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: listen.prt: is not a known key (did you mean port?)\n"


def test_other_addresses_than_loopback_get_tls_with_a_certificate_that_is_named(tmp_path: Path) -> None:
    port = servers.free_port()
    data = tmp_path / "server"
    data.mkdir()
    file = data / "settings.toml"
    file.write_text(f'[listen]\nport = {port}\ntls = "always"\n')
    with (data / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "minuet", "server", "--settings", file], stdout=log, stderr=log
        )
    try:
        context = ssl.create_default_context()
        context.check_hostname = True
        answer = None
        while answer is None:
            assert process.poll() is None, (data / "log").read_text()
            try:
                context.load_verify_locations(data / "tls" / "certificate.pem")
                answer = httpx2.get(f"https://127.0.0.1:{port}/healthz", verify=context, trust_env=False)
            except (OSError, httpx2.TransportError):
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.05)
        assert answer.json()["status"] == "ok"
        [line] = [json.loads(item) for item in (data / "log").read_text().splitlines() if '"serving"' in item]
        assert line["fingerprint"] == (data / "tls" / "fingerprint").read_text().strip()
        with pytest.raises(httpx2.TransportError):
            httpx2.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_a_killed_server_keeps_every_acknowledged_create(started: Server) -> None:
    tenant = servers.tenant(started)
    names = [f"e{number}" for number in range(20)]
    for name in names:
        assert tenant.client.post(f"{tenant.path}/environments", json={"name": name}).status_code == 201
    started.kill()
    started.start()
    client = started.client(tenant.token)
    found = {item["name"] for item in client.get(f"{tenant.path}/environments?limit=200").json()["items"]}
    assert set(names) <= found


def test_a_repeated_create_survives_a_kill(started: Server) -> None:
    tenant = servers.tenant(started)
    headers = {"Idempotency-Key": "k"}
    first = tenant.client.post(f"{tenant.path}/tokens", json={"name": "ci"}, headers=headers).json()
    started.kill()
    started.start()
    again = started.client(tenant.token).post(f"{tenant.path}/tokens", json={"name": "ci"}, headers=headers)
    assert again.json() == first
