"""A real PostgreSQL for tests: a private cluster on a Unix socket, run as an unprivileged uid."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

BINARIES = Path("/usr/lib/postgresql/15/bin")
UID = pwd.getpwnam("nobody").pw_uid
"""PostgreSQL refuses to run as root, and as a uid without a name."""


def is_installed() -> bool:
    return (BINARIES / "initdb").exists()


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """Yields a URL prefix such as `postgresql://minuet@/{}?host=/tmp/...`; `{}` is the database."""
    directory = Path(tempfile.mkdtemp(prefix="mnpg-", dir="/tmp"))
    process: subprocess.Popen[bytes] | None = None
    owner = {"user": UID, "group": UID} if os.geteuid() == 0 else {}
    try:
        if owner:
            os.chown(directory, UID, UID)
        data = directory / "data"
        initdb = [BINARIES / "initdb", "-D", data, "-U", "minuet", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=directory, env={"LC_ALL": "C.UTF-8"}, **owner)
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={directory}", "-c", "max_connections=200"]
        log = (directory / "log").open("wb")
        process = subprocess.Popen(
            [BINARIES / "postgres", "-D", data, "-F", *options], stdout=log, stderr=log, cwd=directory, env={}, **owner
        )
        _wait(directory, process)
        yield f"postgresql://minuet@/{{}}?host={directory}"
    finally:
        if process is not None:
            process.terminate()
            process.wait(20)
        shutil.rmtree(directory, ignore_errors=True)


def create_database(prefix: str, name: str) -> str:
    """Makes an empty database and returns its URL."""
    import psycopg

    host = prefix.partition("host=")[2]
    with psycopg.connect(host=host, user="minuet", dbname="postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return prefix.format(name)


def _wait(directory: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    ready = [str(BINARIES / "pg_isready"), "-h", str(directory), "-U", "minuet", "-q"]
    while subprocess.run(ready, check=False).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError((directory / "log").read_text())
