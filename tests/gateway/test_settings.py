"""The shim's settings say what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from minuet.gateway import envoy
from minuet.gateway.settings import load
from minuet.kernel.errors import Invalid, NotFound


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
        ('directory = "g"\nenvoy = 3', "envoy: must be a path"),
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


def test_the_program_that_was_chosen_is_run_and_one_that_is_none_is_named(tmp_path: Path) -> None:
    program = tmp_path / "envoy"
    program.touch(mode=0o755)
    assert envoy.binary(str(program)) == str(program)
    with pytest.raises(NotFound, match="is no program") as caught:
        envoy.binary(str(tmp_path / "missing"))
    assert caught.value.code == "EnvoyMissing"


def test_without_the_wheel_the_envoy_of_the_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match="none is on the PATH"):
        envoy.binary()
    (tmp_path / "envoy").touch(mode=0o755)
    assert envoy.binary() == str(tmp_path / "envoy")
