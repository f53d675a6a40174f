"""A platform of the bench's own, in a directory that is gone afterwards."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.given.platform import Platform


@contextlib.contextmanager
def own_platform() -> Iterator[tuple[Platform, Path]]:
    """Yields one that is not started yet, and the directory for repositories beside it; stops it at the end."""
    with tempfile.TemporaryDirectory(prefix="minuet-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        platform = Platform(directory)
        try:
            yield platform, directory
        finally:
            platform.down()


@contextlib.contextmanager
def started_platform() -> Iterator[tuple[Platform, Path]]:
    """The same, started, with a project `shop`."""
    with own_platform() as (platform, directory):
        platform.up()
        platform.cli("create", "project", "shop")
        yield platform, directory
