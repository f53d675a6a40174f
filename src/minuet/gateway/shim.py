"""The process that keeps Envoy alive: started by the launcher, outlives agent and supervisor.

It starts Envoy from the snapshot on disk, waits until there is one, starts it
again at once when it dies, and falls back to the last accepted snapshot when the
present one is torn or does not come up. It imports little, since it lives forever.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from minuet.gateway.bootstrap import bootstrap
from minuet.gateway.envoy import Envoy
from minuet.gateway.settings import GatewaySettings, load
from minuet.gateway.snapshot import Address, Snapshot, address_of
from minuet.kernel.errors import Conflict, MinuetError

_LOOK_SECONDS = 0.01
_WAIT_SECONDS = 0.05
_YOUNG_SECONDS = 2.0
_DEAF_SECONDS = 1.0
_DEAF_LOOKS = 5
"""An Envoy that read all its files and has said so often and for so long that it listens nowhere never will.

One that listens and does not answer may just be busy: it has until its time to start is over.
"""

_FAILURES_BEFORE_GOOD = 2
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 2.0


def main(settings_path: Path) -> int:
    """Runs until SIGTERM or SIGINT; returns the exit code."""
    try:
        return Shim(load(settings_path)).run()
    except MinuetError as error:
        _say(error.message)
        return 2


class Shim:
    """One Envoy at a time, as long as nobody asks to stop."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._directory = settings.directory
        self._snapshot = Snapshot(settings.directory)
        self._stopping = False
        self._wakeup, self._wake = socket.socketpair()
        self._failures = 0

    def run(self) -> int:
        os.umask(0o027)
        _raise_file_limit()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        for number in (signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        with self._alone():
            (self._directory / "bootstrap.json").write_text(json.dumps(bootstrap(), indent=1))
            while not self._stopping:
                address = self._address()
                if address is None:
                    self._sleep(_WAIT_SECONDS)
                else:
                    self._live_through(Envoy.adopt(self._directory) or Envoy.start(self._settings), address)
        return 0

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Two shims on one directory would start two Envoys on one port."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "shim.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"another gateway runs on {self._directory}", code="AlreadyRunning") from None
            yield

    def _address(self) -> Address | None:
        """Where the snapshot listens, after putting the accepted one back if the present one is torn."""
        present = self._snapshot.read()
        if present is None and self._snapshot.restore_good():
            _say("the snapshot is torn; the last accepted one is back")
            present = self._snapshot.read()
        return address_of(present) if present else None

    def _live_through(self, envoy: Envoy, address: Address) -> None:
        """Until this Envoy has ended, or was ended by us."""
        answered = self._watch_start(envoy, address)
        if answered:
            self._failures = 0
            select.select([envoy.watch.fileno(), self._wakeup.fileno()], [], [])
        if self._stopping:
            envoy.drain(self._settings.drain_seconds)
        elif not envoy.ended():
            _say("Envoy runs but does not answer; ending it")
        envoy.end()
        lived = time.monotonic() - envoy.began
        code = envoy.forget()
        if not self._stopping:
            self._after_end(answered and lived >= _YOUNG_SECONDS, f"Envoy ended with {code} after {lived:.1f} s")

    def _watch_start(self, envoy: Envoy, address: Address) -> bool:
        """Whether it came up: answered through its own listener in time."""
        deadline = envoy.began + self._settings.start_seconds
        deaf_since: float | None = None
        looks = 0
        while not (self._stopping or envoy.ended()):
            now = time.monotonic()
            if envoy.answers(address.host, address.port):
                _say(f"Envoy {envoy.pid} answers at {address.host}:{address.port}")
                return True
            if not (envoy.is_live() and envoy.lacks_listener()):
                deaf_since, looks = None, 0
            elif deaf_since is None:
                deaf_since = now
            elif (looks := looks + 1) >= _DEAF_LOOKS and now - deaf_since >= _DEAF_SECONDS:
                return False
            if now >= deadline:
                return False
            select.select([envoy.watch.fileno(), self._wakeup.fileno()], [], [], _LOOK_SECONDS)
        return False

    def _after_end(self, was_well: bool, story: str) -> None:
        """Starts again at once the first time; slower, and from the accepted snapshot, when that does not help."""
        _say(f"{story}; starting it again")
        if was_well:
            return
        self._failures += 1
        if self._failures == _FAILURES_BEFORE_GOOD and self._snapshot.restore_good():
            _say("the snapshot does not come up; the last accepted one is back")
        self._sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**self._failures))

    def _on_stop(self, _number: int, _frame: object) -> None:
        self._stopping = True
        self._wake.send(b".")

    def _sleep(self, seconds: float) -> None:
        select.select([self._wakeup], [], [], seconds)


def _raise_file_limit() -> None:
    """A proxied request holds two descriptors; the soft limit is often 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems call their hard limit unlimited and refuse to go there.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _say(line: str) -> None:
    """To the log, whose reader may be gone by now."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
