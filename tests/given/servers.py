"""A real server process for tests, reached over real HTTP."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2


@dataclass
class Server:
    """One server process with its data directory; `url` is its API's origin."""

    data: Path
    port: int
    storage: str = ""
    settings: str = ""
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(default_factory=Path)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def owner_token(self) -> str:
        return (self.data / "owner.token").read_text().strip()

    def credential(self, role: str) -> str:
        return (self.data / "credentials" / f"{role}.token").read_text().strip()

    def start(self) -> None:
        """Starts and waits until it is ready."""
        self.data.mkdir(parents=True, exist_ok=True)
        file = self.data / "settings.toml"
        storage = f'[storage]\nurl = "{self.storage}"\nconnections = 8\n' if self.storage else ""
        file.write_text(f"{self.settings}\n[listen]\nport = {self.port}\n{storage}")
        self.log = self.data / "server.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "minuet", "server", "--settings", str(file)], stdout=log, stderr=log
            )
        self._wait()

    def _wait(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"{self.url}/readyz", trust_env=False).status_code == 200:
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self.log.read_text())
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)

    def kill(self) -> None:
        """Ends it as a power cut would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """Asks it to stop, and returns its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def client(self, token: str | None = None) -> httpx2.Client:
        """Returns a client with the given token, else the first operator's."""
        headers = {"Authorization": f"Bearer {token or self.owner_token}"}
        return httpx2.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=30, trust_env=False)


@contextlib.contextmanager
def running(data: Path, port: int, storage: str = "") -> Iterator[Server]:
    """Yields a started server and stops it."""
    server = Server(data, port, storage)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def unique(prefix: str) -> str:
    """Returns a name that no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


@dataclass
class Tenant:
    """An organization of a test's own, with a client of its owner."""

    name: str
    token: str
    client: httpx2.Client

    @property
    def path(self) -> str:
        return f"/organizations/{self.name}"


def tenant(server: Server) -> Tenant:
    """Makes an organization and returns it with its owner's client."""
    name = unique("org")
    answer = server.client().post("/organizations", json={"name": name})
    assert answer.status_code == 201, answer.text
    token = answer.json()["ownerToken"]
    return Tenant(name, token, server.client(token))


PORTS = os.environ.get("MINUET_TEST_PORTS", "21310-21399")
"""Range of the ports that tests listen on, so that several runs on one machine keep apart."""


def free_port() -> int:
    """Returns a port of the tests' own range that nobody listens on; workers of one run get different ones."""
    import socket

    low, high = (int(part) for part in PORTS.split("-"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    for port in range(low + worker * 20, high + 1):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("no port is free")
