"""The launcher's event loop: descriptors, timers and forked children, nothing else.

Every part of the launcher is given one `Loop`. It is not asyncio because each
shim is forked from this process and would carry it along.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import signal
import time
from collections.abc import Callable
from typing import Any

from minuet import system
from minuet.launcher import wire

Callback = Callable[[], None]
Job = Callable[[], wire.Message]
_REPORT_LIMIT = 64 * 1024
_STANDARD = (0, 1, 2)


class Loop:
    """Runs callbacks, one at a time, until `stop` is called."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callback]] = []
        self._numbers = itertools.count()
        self._running = True

    def on_readable(self, source: Any, callback: Callback) -> None:
        self._selector.register(source, selectors.EVENT_READ, callback)

    def on_writable_too(self, source: Any, *, wanted: bool) -> None:
        """Says whether a watched source calls back when it can be written to as well."""
        key = self._selector.get_map().get(source)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
        if key is not None and key.events != events:
            self._selector.modify(source, events, key.data)

    def forget(self, source: Any) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(source)

    def after(self, seconds: float, callback: Callback) -> None:
        """Calls back once; whoever no longer wants it checks that in the callback."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), callback))

    def stop(self) -> None:
        self._running = False

    def run(self, guard: Callable[[Callback], None]) -> None:
        """Runs until stopped. `guard` calls each callback and keeps its bug from ending the launcher."""
        while self._running:
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for key, _ in self._selector.select(timeout):
                # An earlier callback of this round may have closed what this one is about.
                present = self._selector.get_map().get(key.fd)
                if present is not None and present.data is key.data:
                    guard(key.data)
            while self._timers and self._timers[0][0] <= time.monotonic():
                guard(heapq.heappop(self._timers)[2])

    def watch_process(self, pid: int, ended: Callable[[int | None], None]) -> None:
        """Calls `ended` with the exit code (None for a process that is not our child)."""
        try:
            watch = system.watch(pid)
        except ProcessLookupError:
            self.after(0, lambda: ended(_reap(pid)))
            return

        def finished() -> None:
            self.forget(watch)
            watch.close()
            ended(_reap(pid))

        self.on_readable(watch, finished)

    def in_child(self, job: Job, done: Callable[[wire.Message], None], keep: tuple[int, ...] = ()) -> int:
        """Runs `job` in a forked child, for work that takes long or drops root; `done` gets what it returned.

        Of the launcher's descriptors the child has those of `keep` and its standard error, no others.
        """
        reader, writer = system.pipe()
        pid = os.fork()
        if pid == 0:
            _run_job(job, writer, keep)
        os.close(writer)
        collected = bytearray()

        def arrived() -> None:
            data = os.read(reader, _REPORT_LIMIT)
            collected.extend(data)
            if data and len(collected) < _REPORT_LIMIT:
                return
            self.forget(reader)
            os.close(reader)
            self.watch_process(pid, lambda code: done(_report(bytes(collected), code)))

        self.on_readable(reader, arrived)
        return pid


def _run_job(job: Job, writer: int, keep: tuple[int, ...]) -> None:
    from minuet.kernel.errors import MinuetError

    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _close_all_but({*_STANDARD, writer, *keep})
        answer = job()
    except MinuetError as error:
        answer = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    except BaseException as error:  # noqa: BLE001 - a forked child must end here, whatever happened
        answer = {"error": {"code": "LauncherFailed", "message": f"{type(error).__name__}: {error}"}}
    with contextlib.suppress(OSError):
        os.write(writer, wire.encode(answer))
    os._exit(0)


def _close_all_but(kept: set[int]) -> None:
    ends = sorted(kept)
    for low, high in zip(ends, [*ends[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(low + 1, high)


def _report(data: bytes, code: int | None) -> wire.Message:
    import json

    try:
        answer: wire.Message = json.loads(data)
    except ValueError:
        message = f"a helper process ended with {code} and no answer"
        return {"error": {"code": "LauncherFailed", "message": message}}
    return answer


def _reap(pid: int) -> int | None:
    status = system.reap(pid)
    return None if status is None else os.waitstatus_to_exitcode(status)
