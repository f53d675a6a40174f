"""The logs of supervisor and launcher, which nobody else keeps short.

Their writers hold them open, so a log that has grown is copied aside and emptied
in place; two files of bounded size are kept of each. The roles' logs are the
launcher's business.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

SUPERVISOR = "supervisor.log"
LAUNCHER = "launcher/log"
LIMIT = 4 * 1024 * 1024
"""Bytes; months of what these two have to say."""

_TAIL = 8 * 1024


def keep_short(data: Path, limit: int = LIMIT) -> None:
    """Keeps both below a limit in bytes."""
    for name in (SUPERVISOR, LAUNCHER):
        with contextlib.suppress(FileNotFoundError):
            _rotate(data / name, limit)


def _rotate(path: Path, limit: int) -> None:
    size = path.stat().st_size
    if size < limit:
        return
    with path.open("r+b") as log:
        log.seek(size - limit)
        path.with_name(f"{path.name}.1").write_bytes(log.read(limit))
        log.truncate(0)


def append(path: Path, text: str) -> None:
    """Adds to a log; a disk that is full must not end whoever has something to say."""
    with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as log:
        log.write(text)


def last_line(path: Path) -> str:
    """The last line that says something, or a sentence that there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - _TAIL))
            lines = log.read().decode(errors="replace").split("\n")
    except OSError:
        lines = []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it says nothing")
