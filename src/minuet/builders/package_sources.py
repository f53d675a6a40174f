"""What the tools on this machine are configured to take packages from; no host is written here.

Each tool is asked once and again after a while. Asking takes up to a second and
blocks, so that it is done beside the event loop, and before a build needs it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

_KEPT_SECONDS, _RETRY_SECONDS = 3600.0, 30.0

Answer = TypeVar("Answer")


def kept(ask: Callable[[], Answer], clock: Callable[[], float] = time.monotonic) -> Callable[[], Answer]:
    """Keeps what a slow question was answered: an hour, and half a minute what is empty, since that is a failure.

    A failure never takes the place of an answer that was had before.
    """
    held: list[tuple[float, Answer]] = []
    asking = threading.Lock()

    @functools.wraps(ask)
    def answered() -> Answer:
        with asking:
            if held and clock() < held[0][0]:
                return held[0][1]
            found = ask()
            lasts = _KEPT_SECONDS if found else _RETRY_SECONDS
            held[:] = [(clock() + lasts, found if found or not held else held[0][1])]
            return held[0][1]

    return answered


def hosts() -> frozenset[str]:
    """The hosts that this machine's own pip, npm and Go take packages from."""
    found: set[str] = set()
    for source in (*_pip_sources(), *_npm_sources(), *_go_sources()):
        host = urlsplit(source if "//" in source else f"//{source}").hostname
        if host:
            found.add(host.lower())
    return frozenset(found)


def pip_index() -> str | None:
    """The index that pip is configured to use, if it is another than its own default."""
    return next((_without_user(value) for name, value in _pip_settings() if name.endswith(".index-url")), None)


@kept
def _pip_settings() -> tuple[tuple[str, str], ...]:
    """Names and values; the first is there always, so that no settings differ from no answer."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=20, check=False
        )
        pairs = (line.partition("=") for line in done.stdout.splitlines())
        return (("", ""), *((name, value.strip("'\"")) for name, _, value in pairs))
    return ()


def _pip_sources() -> list[str]:
    configured = pip_index()
    return [*_pip_defaults(), *([configured] if configured else [])]


@kept
def _pip_defaults() -> tuple[str, ...]:
    script = (
        "import json; from pip._internal.models.index import PyPI; "
        "print(json.dumps([PyPI.url, '//' + PyPI.file_storage_domain]))"
    )
    found = ask([sys.executable, "-c", script])
    return tuple(json.loads(found)) if found else ()


@kept
def npm_registry() -> str | None:
    """The registry that npm is configured to use; what a person wrote into it to be let in is left out."""
    found = ask(["npm", "config", "get", "registry"])
    return _without_user(found) if urlsplit(found).hostname else None


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _npm_sources() -> list[str]:
    return [found] if (found := npm_registry()) else []


@kept
def go_settings() -> dict[str, str]:
    """Where this machine's Go takes modules and their checksums from; empty without Go."""
    names = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE")
    found = ask([str(path), "env", *names]) if (path := go_program()) else ""
    return dict(zip(names, found.splitlines(), strict=False))


def go_program() -> Path | None:
    """The Go of this machine, if it lies where every sandbox sees it."""
    usual = (shutil.which("go"), "/usr/local/go/bin/go", "/usr/lib/go/bin/go")
    return next((Path(path) for path in usual if path and path.startswith("/usr/") and Path(path).exists()), None)


def _go_sources() -> list[str]:
    settings = go_settings()
    text = f"{settings.get('GOPROXY', '')},{settings.get('GOSUMDB', '').partition('+')[0]}"
    return [part for part in text.replace("|", ",").split(",") if "." in part]


def ask(command: list[str]) -> str:
    """The answer of a tool of this machine; nothing when it is not there."""
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": os.environ.get("HOME", "/")}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, env=environment)
        if done.returncode == 0:
            return done.stdout.strip()
    return ""
