"""The shim's settings say what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from minuet.gateway.settings import load
from minuet.kernel.errors import Invalid


def _load(directory: Path, text: str):
    file = directory / "settings.toml"
    file.write_text(text)
    return load(file)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    assert _load(tmp_path, 'directory = "../plane/gateway"').directory == tmp_path / "../plane/gateway"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "directory: must be given"),
        ("directory = 3", "directory: must be given"),
        ('directory = "g"\nconcurency = 2', "concurency: is not a known key"),
        ('directory = "g"\nconcurrency = 0', "concurrency: must be between 1 and 256"),
        ('directory = "g"\nconcurrency = true', "concurrency: must be a number of threads"),
        ('directory = "g"\ndrain_seconds = "3"', "drain_seconds: must be a number of s"),
        ("directory = ", "cannot be read"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        _load(tmp_path, text)


def test_a_key_that_was_meant_to_be_another_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        _load(tmp_path, 'directory = "g"\nconcurency = 2')
    assert caught.value.hint == "did you mean concurrency?"
