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
    peers = (("piku", "MINUET_BENCH_PIKU", _piku), ("Hop3", "MINUET_BENCH_HOP3", _hop3))
    return [_row(name, variable, run, directory, ours) for name, variable, run in peers]


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
        return _rounds(repository, port, push)


_HOP3_HOOK = """\
#!/bin/sh
cd /
exec {python} -c '
import sys
from hop3.deploy import do_deploy
from hop3.orm import App
do_deploy(App(name="app"), newrev=sys.stdin.readline().split()[1])
'
"""


def _hop3(python: Path, directory: Path) -> Outcome:
    """`MINUET_BENCH_HOP3` names the interpreter of an environment with hop3-server; PATH must hold uwsgi and virtualenv.

    The release that was published last has a deployer and no command for Git's
    hook, so the hook calls the deployer itself.
    """
    directory.mkdir()
    application = directory / "apps/app"
    for folder in ("src", "log", "data"):
        (application / folder).mkdir(parents=True)
    for folder in ("uwsgi", "uwsgi-enabled", "uwsgi-available", "nginx", "cache"):
        (directory / folder).mkdir()
    settings = directory / "uwsgi/uwsgi.ini"
    settings.write_text(f"[uwsgi]\nemperor = {directory}/uwsgi-enabled\nenable-threads = true\nthreads = 8\n")
    environment = {"HOME": str(directory), "HOP3_ROOT": str(directory), "HOP3_USER": "root", "PATH": os.environ["PATH"]}
    port = free_port()
    (application / "ENV").write_text(f"PORT={port}\nBIND_ADDRESS=127.0.0.1\n")
    repository = Repository(directory / "work")
    repository.commit(python_app("v0") | {"requirements.txt": ""})
    hosted = application / "git"
    repository.git("init", "-q", "--bare", "-b", "main", str(hosted))
    repository.git("push", "-q", str(hosted), "main")
    repository.git("clone", "-q", str(hosted), str(application / "src"))
    hook = hosted / "hooks/post-receive"
    hook.write_text(_HOP3_HOOK.format(python=python))
    hook.chmod(0o755)
    repository.git("remote", "add", "peer", str(hosted))
    repository.git("commit", "-q", "--allow-empty", "-m", "First")
    with _emperor(settings, environment):
        return _rounds(repository, port, environment)


def _rounds(repository: Repository, port: int, environment: Mapping[str, str]) -> Outcome:
    """The first push, until it serves, and then the rounds that count."""
    repository.git("push", "-q", "peer", "main", environment=environment)
    with Load(port, "127.0.0.1", connections=1, rate=20) as first:
        eventually(lambda: any(body == "v0" for _, body in first.answers), 60, "the peer serves")
    return redeploy(repository, ("peer", "main"), Load(port, "127.0.0.1"), ROUNDS, environment)


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
