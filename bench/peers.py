"""The same redeploy with other platforms of one machine, where the person who measures has them.

A peer is measured by its own push path: Git's pack protocol into its receive
command, and its own supervisor running the application. What stands in front of
the application (ssh, nginx) is left out, which favours the peer. Nothing is
claimed of a peer that was not run: its row says which variable would name it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bench.rounds import Outcome, redeploy
from bench.table import Row
from tests.given.load import Load
from tests.given.platform import eventually, free_port
from tests.given.repository import Repository, python_app

ROUNDS = 10
"""Enough for a median, and few enough for a peer that takes seconds."""

AT_LEAST = 3.0

Peer = Callable[[Path, Path], Outcome]


def measure(directory: Path, ours: float) -> list[Row]:
    """A row for each peer: its seconds as ratios to `ours`, our median."""
    return [_row("piku", "MINUET_BENCH_PIKU", _piku, directory, ours)]


def _row(name: str, variable: str, run: Peer, directory: Path, ours: float) -> Row:
    what, goal = f"the same with {name}, theirs / ours", f">= {AT_LEAST:g}"
    path = os.environ.get(variable)
    if not path:
        return Row(what, goal, "ratio", note=f"not run: {variable} is not set")
    outcome = run(Path(path), directory / name)
    ratios = [seconds / ours for seconds in outcome.seconds]
    note = f"median {statistics.median(outcome.seconds):.2f} s, {len(outcome.failures)} failed requests"
    return Row(what, goal, "ratio", ratios, statistics.median(ratios) >= AT_LEAST, note)


def _piku(script: Path, directory: Path) -> Outcome:
    """`MINUET_BENCH_PIKU` names piku.py; PATH must hold uwsgi, virtualenv and a python3 with click."""
    directory.mkdir()
    environment = {
        "HOME": str(directory),
        "PIKU_ROOT": str(directory / "root"),
        "USER": "root",
        "PATH": os.environ["PATH"],
    }
    subprocess.run(["python3", str(script), "setup"], env=environment, check=True, capture_output=True)
    transport = directory / "transport"
    transport.write_text(f'#!/bin/sh\neval "set -- $2"\nexec python3 {script} "$@"\n')
    transport.chmod(0o755)
    port = free_port()
    repository = Repository(directory / "work")
    settings = {"ENV": f"PORT={port}\nBIND_ADDRESS=127.0.0.1\n", "requirements.txt": ""}
    repository.commit(python_app("v0") | settings)
    repository.git("remote", "add", "peer", "piku@localhost:app")
    push = environment | {"GIT_SSH": str(transport), "GIT_SSH_VARIANT": "simple"}
    with _emperor(directory / "root/uwsgi/uwsgi.ini", environment):
        repository.git("push", "-q", "peer", "main", environment=push)
        load = Load(port, "127.0.0.1")
        with Load(port, "127.0.0.1", connections=1) as first:
            eventually(lambda: any(body == "v0" for _, body in first.answers), 60, "the peer serves")
        return redeploy(repository, "peer", load, ROUNDS, push)


@contextlib.contextmanager
def _emperor(settings: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """piku's own supervisor: uWSGI in emperor mode, with the settings that its setup wrote."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(["uwsgi", "--ini", str(settings)], env=dict(environment), stdout=log, stderr=log)
        try:
            yield
        finally:
            process.send_signal(signal.SIGQUIT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
