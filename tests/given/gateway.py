"""A real gateway: the shim as its own process, Envoy below it, and the agent's hand on both."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minuet.agent.gateway import GatewayHost
from minuet.gateway.admission import Admitted
from minuet.gateway.limits import GatewayLimits
from minuet.gateway.model import Backend, Endpoint, RouteRule, RoutingTable
from minuet.kernel.retry import Retry
from tests.given.platform import eventually, free_port

HOST = "web--shop--development.localhost"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Gateway:
    """One gateway on a port of its own."""

    def __init__(self, directory: Path, limits: GatewayLimits | None = None, **settings: float) -> None:
        self.directory = directory / "gateway"
        self.port = free_port()
        self.admitted = Admitted(RoutingTable())
        self.host = GatewayHost(self.directory, "127.0.0.1", self.port, limits)
        lines = ['directory = "gateway"', *(f"{name} = {value}" for name, value in settings.items())]
        self._settings = directory / "settings.toml"
        self._settings.write_text("\n".join(lines))
        self._log = (directory / "log").open("wb")
        self.shim = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Starts a shim; the present one must be gone."""
        self.shim = subprocess.Popen(
            [sys.executable, "-m", "minuet", "gateway", "--settings", str(self._settings)],
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        return self.shim

    def stop(self) -> None:
        """Ends shim and Envoy, whatever became of them."""
        if self.shim.poll() is None:
            self.shim.terminate()
        try:
            self.shim.wait(20)
        except subprocess.TimeoutExpired:
            self.shim.kill()
            self.shim.wait()
        with contextlib.suppress(OSError, ValueError):
            os.kill(self.envoy(), signal.SIGKILL)
        self._log.close()

    def log(self) -> str:
        return (self.directory.parent / "log").read_text(errors="replace")

    def envoy(self) -> int:
        return int(json.loads((self.directory / "envoy.pid").read_text())["pid"])

    def kill_envoy(self) -> int:
        pid = self.envoy()
        os.kill(pid, signal.SIGKILL)
        return pid

    def apply(
        self, table: RoutingTable, removed: frozenset[str] = frozenset(), host: GatewayHost | None = None
    ) -> None:
        """Applies as the agent does, which tries again while Envoy starts."""

        def attempt() -> bool:
            try:
                self.admitted = asyncio.run((host or self.host).apply(table, removed))
            except Retry:
                return False
            return True

        eventually(attempt, 30, "the gateway confirms the table")

    def active(self, backend: str) -> int | None:
        return asyncio.run(self.host.active_requests(backend))

    def is_ready(self) -> bool:
        return asyncio.run(self.host.ready())

    def get(self, path: str = "/", host: str = HOST, **more: Any) -> Answer:
        return self.request("GET", path, host, **more)

    def request(
        self,
        method: str,
        path: str,
        host: str = HOST,
        *,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        chunked: bool = False,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {"Host": host, **(headers or {})}, encode_chunked=chunked)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def raw(self, data: bytes) -> bytes:
        """Sends bytes and reads until the gateway closes or is silent for a moment after its answer."""
        with self.connect() as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(data)
            return read_all(connection)


def read_all(connection: socket.socket, quiet: float = 0.25) -> bytes:
    answer = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while chunk := connection.recv(65536):
            answer += chunk
            connection.settimeout(quiet)
    return answer


def backend(version: str, *ports: int, draining: bool = False) -> Backend:
    """A version of the one workload, with its instances at loopback."""
    endpoints = tuple(Endpoint("127.0.0.1", port, draining) for port in ports)
    return Backend(f"cmp_1/env_1:8080@{version}", endpoints)


def route(version: str, host: str = HOST, base_path: str = "/", **more: Any) -> RouteRule:
    fields: dict[str, Any] = {"owner": "cmp_1/env_1", **more}
    return RouteRule(host, base_path, f"cmp_1/env_1:8080@{version}", **fields)


def table(*ports: int, **more: Any) -> RoutingTable:
    """One host, one version, these instances."""
    return RoutingTable((route("one", **more),), (backend("one", *ports),))
