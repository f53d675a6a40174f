"""One platform of real processes for all end-to-end tests of a run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.given.platform import Platform
from tests.given.repository import Repository, python_app


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A started platform; without root or bubblewrap it says why it skips."""
    if os.geteuid() != 0 or not shutil.which("bwrap"):
        pytest.skip("needs root and bubblewrap: the real sandbox is part of what is tested")
    platform = Platform(tmp_path_factory.mktemp("platform"))
    platform.up()
    platform.cli("create", "project", "shop")
    yield platform
    platform.down()
    left = platform.processes()
    assert left == {}, f"processes left after `minuet down`: {left}"


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every uid may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="minuet-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def repository(open_path: Path) -> Repository:
    """A repository with one commit of a small Python application, readable by every uid."""
    made = Repository(open_path / "repository")
    made.commit(python_app("one"))
    return made
