"""Contexts are private, survive bad text, and never give a token to another server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minuet.client import contexts
from minuet.client.contexts import Context
from minuet.kernel.errors import Invalid, NotFound, Unauthenticated

VARIABLES = ("MINUET_SERVER", "MINUET_TOKEN", "MINUET_ORGANIZATION", "MINUET_CONFIG")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    place = tmp_path / "config" / "contexts.toml"
    monkeypatch.setenv("MINUET_CONFIG", str(place))
    return place


def test_only_its_owner_may_read_the_file(file: Path) -> None:
    previous = os.umask(0)
    try:
        contexts.save("local", Context("http://127.0.0.1:8400", "t"))
    finally:
        os.umask(previous)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o077 == 0
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(TEXTS, st.builds(Context, TEXTS, TEXTS, TEXTS, st.none() | TEXTS, st.none() | TEXTS, st.none() | TEXTS))
def test_whatever_text_is_saved_is_read_back(file: Path, name: str, context: Context) -> None:
    file.unlink(missing_ok=True)
    contexts.save(name, context)
    assert contexts.load() == (name, {name: context})


def test_the_first_is_current_and_another_can_be_chosen() -> None:
    contexts.save("a", Context("http://a", "1"))
    contexts.save("b", Context("http://b", "2"), use=False)
    assert contexts.current().server == "http://a"
    contexts.use("b")
    assert contexts.current().server == "http://b"
    contexts.remove("b")
    assert contexts.current().server == "http://a"
    with pytest.raises(NotFound):
        contexts.use("b")


def test_without_a_context_one_is_told_to_sign_in() -> None:
    with pytest.raises(Unauthenticated) as caught:
        contexts.current()
    assert "minuet login" in (caught.value.hint or "")


def test_the_environment_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINUET_SERVER", "http://elsewhere")
    monkeypatch.setenv("MINUET_TOKEN", "t")
    monkeypatch.setenv("MINUET_ORGANIZATION", "stark")
    assert contexts.current() == Context("http://elsewhere", "t", "stark")


def test_a_stored_token_is_not_sent_to_a_server_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts.save("a", Context("http://a", "stored", fingerprint="f" * 64))
    monkeypatch.setenv("MINUET_SERVER", "http://evil")
    with pytest.raises(Unauthenticated):
        contexts.current()
    monkeypatch.setenv("MINUET_TOKEN", "other")
    assert contexts.current() == Context("http://evil", "other")


def test_the_same_server_in_the_environment_keeps_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts.save("a", Context("http://a", "stored"))
    monkeypatch.setenv("MINUET_SERVER", "http://a/")
    assert contexts.current().token == "stored"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("current = ", "cannot be read"),
        ("contexts = 1", "not a table"),
        ("[contexts]\na = 1", "not a table"),
        ('[contexts.a]\nserver = "http://a"', "no token"),
        ('[contexts.a]\nserver = "http://a"\ntoken = 1', "not a text"),
        ('[contexts.a]\nserver = "http://a"\ntokn = "t"', "did you mean token"),
        ("\udcff", "cannot be read"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(file: Path, text: str, told: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Invalid, match=told) as caught:
        contexts.current()
    assert str(file) in caught.value.message


def test_a_token_is_not_in_what_is_printed_of_a_context() -> None:
    assert "t0ken" not in repr(Context("http://a", "t0ken"))


def test_a_project_stands_in_the_variables_of_the_shell_above_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts.save("one", contexts.Context("http://127.0.0.1:1", "token-1", "acme", project="shop"))
    assert contexts.current().project == "shop"
    monkeypatch.setenv("MINUET_PROJECT", "other")
    assert contexts.current().project == "other"


def test_a_project_of_one_organization_is_not_meant_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts.save("one", contexts.Context("http://127.0.0.1:1", "token-1", "acme", project="shop"))
    monkeypatch.setenv("MINUET_ORGANIZATION", "stark")
    used = contexts.current()
    assert used.project is None
    assert not contexts.mean("lab", used)
    assert contexts.load()[1]["one"].project == "shop"


def test_a_chosen_project_is_kept_where_the_command_was_for_the_stored_context() -> None:
    contexts.save("one", contexts.Context("http://127.0.0.1:1", "token-1", "acme"))
    assert contexts.mean("shop", contexts.current())
    assert contexts.current().project == "shop"
    assert contexts.mean(None, contexts.current())
    assert contexts.current().project is None
