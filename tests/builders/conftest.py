"""One real builder for all tests of this room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.given.workbench import Workbench, workbench


@pytest.fixture(scope="session")
def bench() -> Iterator[Workbench]:
    """Without root or bubblewrap it says why it skips."""
    if os.geteuid() != 0 or not shutil.which("bwrap"):
        pytest.skip("needs root and bubblewrap: the real sandbox is part of what is tested")
    with workbench() as made:
        yield made
