"""Settings: typed, with the nearest key for one nobody knows, relative to their file."""

from __future__ import annotations

from pathlib import Path

import pytest

from minuet.infra import settings
from minuet.kernel.errors import Invalid
from minuet.server.settings import ServerSettings


def write(path: Path, text: str) -> Path:
    file = path / "settings.toml"
    file.write_text(text)
    return file


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    loaded = settings.load(ServerSettings, write(tmp_path, ""))
    assert (loaded.listen.host, loaded.listen.port) == ("127.0.0.1", 8400)
    assert loaded.data == tmp_path
    assert loaded.database_url == f"sqlite:///{tmp_path}/minuet.db"


def test_relative_paths_count_from_the_file(tmp_path: Path) -> None:
    assert settings.load(ServerSettings, write(tmp_path, 'data = "here"')).data == tmp_path / "here"
    assert settings.load(ServerSettings, write(tmp_path, 'data = "/there"')).data == Path("/there")


@pytest.mark.parametrize(
    ("text", "field", "hint"),
    [
        ("dta = '.'", "dta", "did you mean data?"),
        ("[listen]\nprt = 1", "listen.prt", "did you mean port?"),
        ("[listn]\nport = 1", "listn", "did you mean listen?"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, text: str, field: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        settings.load(ServerSettings, write(tmp_path, text))
    assert caught.value.violations[0].field == field
    assert caught.value.hint == hint


@pytest.mark.parametrize("text", ["[listen]\nport = 70000", "[listen]\nport = 'x'", "log_level = 'LOUD'"])
def test_a_value_outside_its_bounds_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        settings.load(ServerSettings, write(tmp_path, text))
    assert caught.value.violations[0].field in ("listen.port", "log_level")


def test_a_file_that_is_missing_or_no_toml_is_told(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        settings.load(ServerSettings, tmp_path / "none.toml")
    with pytest.raises(Invalid, match="not TOML"):
        settings.load(ServerSettings, write(tmp_path, "a = = b"))


def test_plain_http_is_for_loopback_only(tmp_path: Path) -> None:
    assert not settings.load(ServerSettings, write(tmp_path, "")).wants_tls
    assert settings.load(ServerSettings, write(tmp_path, '[listen]\nhost = "0.0.0.0"')).wants_tls
    with pytest.raises(Invalid, match="never"):
        _ = settings.load(ServerSettings, write(tmp_path, '[listen]\nhost = "::"\ntls = "never"')).wants_tls


def test_every_setting_says_why() -> None:
    for name, field in ServerSettings.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        if inner is None:
            assert field.description, name
        else:
            assert all(item.description for item in inner.values()), name
