"""Watching and recognising processes, by the ways of Linux and by the portable ones, which must agree."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from minuet import system
from minuet.launcher import processes
from minuet.launcher.loop import Loop


@pytest.fixture(params=[True, False], ids=["linux", "portable"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(system, "IS_LINUX", request.param)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGALRM)}
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in handlers.items():
        signal.signal(number, handler)


pytestmark = pytest.mark.usefixtures("_way")


def child(code: str = "import time; time.sleep(60)") -> int:
    """A child of this process that nobody else waits for."""
    pid = os.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-S", "-c", code])
    return pid


def test_the_loop_tells_the_end_of_a_child_with_its_code() -> None:
    loop, ended = Loop(), []

    def finished(code: int | None) -> None:
        ended.append(code)
        loop.stop()

    loop.watch_process(child("raise SystemExit(7)"), finished)
    loop.after(20, loop.stop)
    loop.run(lambda callback: callback())
    assert ended == [7]


def test_the_loop_tells_the_end_of_a_child_that_was_killed_while_it_watches_others() -> None:
    loop, ended = Loop(), []
    first, second = child(), child()

    def finished(code: int | None) -> None:
        ended.append(code)
        loop.stop()

    loop.watch_process(first, finished)
    loop.watch_process(second, lambda _: None)
    loop.after(0, lambda: os.kill(first, signal.SIGKILL))
    loop.after(20, loop.stop)
    loop.run(lambda callback: callback())
    assert ended == [-signal.SIGKILL]
    watch = system.watch(second)
    os.kill(second, signal.SIGKILL)
    assert watch.wait(20)


def test_the_loop_runs_a_job_in_a_child_and_hears_its_answer() -> None:
    loop, answers = Loop(), []

    def done(answer: dict[str, object]) -> None:
        answers.append(answer)
        loop.stop()

    loop.in_child(lambda: {"pid": os.getpid()}, done)
    loop.after(20, loop.stop)
    loop.run(lambda callback: callback())
    assert answers[0]["pid"] != os.getpid()


def test_the_end_of_a_process_that_is_no_child_is_seen() -> None:
    parent = "import subprocess as s; print(s.Popen(['sleep', '60'], stdout=s.DEVNULL, stderr=s.DEVNULL).pid)"
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True)
    stranger = int(done.stdout)
    watch = system.watch(stranger)
    assert not watch.wait(0.05)
    watch.send(signal.SIGKILL)
    assert watch.wait(20)
    watch.close()


def test_nobody_is_watched_who_is_not_there() -> None:
    pid = child("pass")
    os.waitpid(pid, 0)
    with pytest.raises(ProcessLookupError):
        system.watch(pid)


def test_a_process_is_recognised_until_it_has_ended() -> None:
    pid = child()
    mark = processes.mark_of(pid)
    assert mark is not None
    assert processes.alive(mark)
    assert processes.mark_of(pid) == mark
    assert processes.send(mark, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while processes.alive(mark) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not processes.alive(mark), "a zombie is no living process"
    system.reap(pid)
    assert not processes.send(mark, signal.SIGKILL)


def test_children_and_their_words_are_found() -> None:
    pid = child("import time; time.sleep(60)  # a-mark-of-this-test")
    deadline = time.monotonic() + 20
    found: list[system.Process] = []
    while not found and time.monotonic() < deadline:
        found = [item for item in system.processes() if item.pid == pid and "a-mark" in " ".join(item.words)]
    assert found[0].parent == os.getpid()
    assert pid in system.children_of(os.getpid())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_forked_child_has_no_watch_of_its_parent() -> None:
    pid = child()
    watch = system.watch(pid)
    forked = os.fork()
    if forked == 0:
        os._exit(0 if system.reap(pid) is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    os.kill(pid, signal.SIGKILL)
    assert watch.wait(20)
    status = system.reap(pid)
    assert status is not None
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def test_the_peer_of_a_socket_is_told_by_its_uid() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert system.peer_uid(one) == os.getuid()
    assert system.uid_of_xucred(struct.pack("=IIhh16I", 0, 501, 1, 0, *range(16))) == 501
    with pytest.raises(OSError, match="version 9"):
        system.uid_of_xucred(struct.pack("=II", 9, 501))
