"""Server, builder and agent on three hosts: no file shared, TLS with pinned certificates between them.

The hosts are network namespaces on one bridge; each has a data directory and a
launcher of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.given.platform import MINUET, eventually
from tests.given.repository import Repository, python_app

BRIDGE = "mnhosts"
ADDRESSES = {"server": "10.231.7.1", "builder": "10.231.7.2", "agent": "10.231.7.3"}
POOLS = {"server": "100.90.0.0/20", "builder": "100.90.16.0/20", "agent": "100.90.32.0/20"}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Host:
    """A network namespace with a data directory and a launcher."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.data = directory / name
        self.namespace = f"mn-{name}"
        self.address = ADDRESSES[name]
        self._launcher: subprocess.Popen[bytes] | None = None

    def connect(self) -> None:
        ip("netns", "add", self.namespace)
        ip("link", "add", f"mnh{self.name[:6]}", "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("link", "set", f"mnh{self.name[:6]}", "master", BRIDGE, "up")
        for command in (
            ["addr", "add", f"{self.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["link", "set", "lo", "up"],
        ):
            ip("-n", self.namespace, *command)

    def run(self, *command: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._inside(*command), capture_output=True, text=True, timeout=120, check=False, **options
        )  # type: ignore[call-overload, no-any-return]

    def settings(self, role: str, text: str) -> None:
        (self.data / role).mkdir(parents=True, exist_ok=True)
        (self.data / role / "settings.toml").write_text(text)

    def start(self, role: str) -> None:
        """Starts the launcher, and by it the role, as the how-to says."""
        self.settings("launcher", f'address_pool = "{POOLS[self.name]}"\n')
        settings = self.data / "launcher" / "settings.toml"
        with (self.data / "launcher" / "log").open("wb") as log:
            self._launcher = subprocess.Popen(
                self._inside(str(MINUET), "launcher", "--settings", str(settings), "--start", role),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _inside(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *command]

    def give_credential(self, role: str, token: str) -> None:
        path = self.data / role / "credential"
        path.write_text(token)
        path.chmod(0o600)

    def stop(self) -> None:
        if self._launcher is not None:
            stopped = self.run(str(MINUET), "down", "--data", str(self.data))
            assert stopped.returncode == 0, stopped.stderr
            assert self._launcher.wait(20) == 0
            self._launcher = None


@pytest.fixture
def hosts(open_path: Path) -> Iterator[dict[str, Host]]:
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("needs root and iproute2: the hosts are network namespaces")
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("link", "set", BRIDGE, "up")
    made = {name: Host(name, open_path) for name in ADDRESSES}
    try:
        for host in made.values():
            host.connect()
        yield made
    finally:
        for host in made.values():
            host.stop()
            for leftover in (["link", "del", f"mnh{host.name[:6]}"], ["netns", "del", host.namespace]):
                subprocess.run(["ip", *leftover], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)


def start_server(host: Host) -> tuple[str, str]:
    """Starts it; returns its address and the fingerprint of the certificate it made."""
    text = f'data = "."\n[listen]\nhost = "{host.address}"\nport = 8400\n[repositories]\nallow_files = true\n'
    host.settings("server", text)
    host.start("server")
    fingerprint = host.data / "server" / "tls" / "fingerprint"
    eventually(lambda: fingerprint.exists() and (host.data / "server" / "owner.token").exists(), what="the server")
    return f"https://{host.address}:8400", fingerprint.read_text().strip()


def start_neighbours(hosts: dict[str, Host], server: str, fingerprint: str) -> None:
    """Starts builder and agent with nothing but what an operator would copy: address, fingerprint, credential."""
    pinned = f'fingerprint = "{fingerprint}"\ncredential = "credential"\n'
    builder, agent = hosts["builder"], hosts["agent"]
    builder.settings(
        "builder",
        f'directory = "."\nserver = "{server}"\n{pinned}launcher = "../launcher/sockets/builder.sock"\n'
        f'address = "{builder.address}"\nallow_local_repositories = true\n',
    )
    agent.settings(
        "agent",
        f'directory = "../plane"\nservers = ["{server}"]\n{pinned}launcher = "../launcher/sockets/agent.sock"\n'
        "gateway_port = 8480\n",
    )
    agent.settings("gateway", 'directory = "../plane/gateway"\n')
    credentials = hosts["server"].data / "server" / "credentials"
    for host in (builder, agent):
        host.give_credential(host.name, (credentials / f"{host.name}.token").read_text())
        host.start(host.name)


def test_three_hosts_that_share_nothing_deploy_and_outlive_the_control_plane(
    hosts: dict[str, Host], tmp_path: Path, open_path: Path
) -> None:
    server, fingerprint = start_server(hosts["server"])
    start_neighbours(hosts, server, fingerprint)
    home = {**os.environ, "HOME": str(tmp_path), "MINUET_CONFIG": str(tmp_path / "contexts.toml"), "NO_COLOR": "1"}
    token = (hosts["server"].data / "server" / "owner.token").read_text()

    def cli(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return hosts["server"].run(str(MINUET), *arguments, env=home, input=stdin)

    signed_in = cli("login", "--server", server, "--with-token", "--fingerprint", fingerprint, stdin=token)
    assert signed_in.returncode == 0, signed_in.stderr
    eventually(lambda: cli("status").returncode == 0, what="builder and agent have joined over TLS")

    repository = Repository(open_path / "repository")
    repository.commit(python_app("far"))
    for command in (
        ("create", "project", "shop"),
        (
            "create",
            "component",
            "web",
            "--type",
            "service",
            "--repo",
            repository.url,
            "--build-configs",
            "buildpack=python,buildPackLangVersion=3.11",
        ),
        ("create", "build", "web"),
        ("create", "deployment", "web", "--env", "Development"),
    ):
        done = cli(*command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def answer() -> str:
        url = "http://127.0.0.1:8480/"
        header = "Host: web--shop--development.localhost"
        return hosts["agent"].run("curl", "-s", "--max-time", "3", "-H", header, url).stdout

    assert answer() == "far"
    hosts["server"].stop()
    shutil.rmtree(hosts["server"].data)
    time.sleep(1)
    assert answer() == "far", "the data plane goes on without its control plane"


def test_another_certificate_than_the_pinned_one_is_refused(hosts: dict[str, Host], tmp_path: Path) -> None:
    server, _ = start_server(hosts["server"])
    token = (hosts["server"].data / "server" / "owner.token").read_text()
    home = {**os.environ, "MINUET_CONFIG": str(tmp_path / "contexts.toml")}
    refused = hosts["server"].run(
        *(str(MINUET), "login", "--server", server, "--with-token", "--fingerprint", "0" * 64), env=home, input=token
    )
    assert refused.returncode == 4
    assert "another certificate" in refused.stderr
