"""In which order the files run when several workers share them: the longest do not come last."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

_LONG = ("e2e", "builders")
"""Folders whose files wait more than they compute; they are spread over the run, beside those that compute."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    files = list(dict.fromkeys(item.path for item in items))
    long = [path for path in files if _folder(path) in _LONG]
    place = {
        path: number for number, path in enumerate(_alternating(long, [path for path in files if path not in long]))
    }
    items.sort(key=lambda item: place[item.path])


def _folder(path: Path) -> str:
    parts = path.parts
    return parts[parts.index("tests") + 1] if "tests" in parts else ""


def _alternating(one: list[Path], other: list[Path]) -> Iterator[Path]:
    for pair in itertools.zip_longest(one, other):
        yield from filter(None, pair)
