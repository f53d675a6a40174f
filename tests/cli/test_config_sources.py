"""Values are read as people write them, and never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from minuet.cli import config_sources
from minuet.control.configuration import model
from minuet.kernel.errors import Invalid
from minuet.render.inputs import EntryKind
from tests.given.command import Command
from tests.given.recorded import Recorded, document

PATH = "/api/v1/organizations/default/projects/shop/components/web/environments/production/configuration"
WHERE = ("--project", "shop", "--env", "Production")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("  export A = 1  ", "1"),
        ("A=", ""),
        ("A=one two # said", "one two"),
        ("A=#1", "#1"),
        ('A="one # two" # said', "one # two"),
        (r'A="one\ntwo\"\\"', 'one\ntwo"\\'),
        (r"A='one\n'", r"one\n"),
        ("A=a=b", "a=b"),
    ],
)
def test_a_line_of_an_env_file_means_what_shells_mean(line: str, value: str, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(f"\ufeff# comment\n\n{line}\n")
    assert config_sources.env_file(file) == [{"name": "A", "kind": "variable", "value": value}]


@pytest.mark.parametrize("line", ["A", "=1", "1A=2", 'A="open', "A='open", 'A="x" y', "A B=1"])
def test_a_line_that_is_no_assignment_is_named_without_its_value(line: str, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(f"FIRST=1\n{line}\n")
    with pytest.raises(Invalid, match=r"line 2: this is not NAME=value"):
        config_sources.env_file(file)


def test_a_file_that_is_no_text_or_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(Invalid, match="not UTF-8"):
        config_sources.read(file)
    monkeypatch.setattr(config_sources, "MAX_BYTES", 3)
    file.write_text("four")
    with pytest.raises(Invalid, match="longer than 3 bytes"):
        config_sources.read(file)


def sent(
    server: Recorded, minuet: Command, *arguments: str, stdin: str = "", there: tuple[dict[str, str], ...] = ()
) -> list[dict[str, str]]:
    server.on(f"GET {PATH}", document({"revision": 1, "entries": there}))
    server.on(f"PATCH {PATH}", document({"revision": 2, "entries": []}))
    done = minuet("set", "config", "web", *WHERE, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    body = server.asked[-1].body
    assert body["apply"] is True
    entries: list[dict[str, str]] = body["set"]
    return entries


def test_a_secret_from_standard_input_may_have_many_lines(server: Recorded, minuet: Command) -> None:
    key = "-----BEGIN KEY-----\nabc\n-----END KEY-----"
    assert sent(server, minuet, "--secret", "KEY", stdin=f"{key}\n") == [
        {"name": "KEY", "kind": "secret", "value": key}
    ]


def test_several_secrets_from_standard_input_are_one_a_line(server: Recorded, minuet: Command) -> None:
    found = sent(server, minuet, "--secret", "A", "--secret", "B=given", "--secret", "C", stdin="one\ntwo\n")
    assert {entry["name"]: entry["value"] for entry in found} == {"A": "one", "B": "given", "C": "two"}


def test_a_secret_is_asked_for_on_a_terminal_and_not_shown(server: Recorded, minuet: Command) -> None:
    server.on(f"PATCH {PATH}", document({"revision": 2, "entries": []}))
    typed = minuet.on_terminal("set", "config", "web", *WHERE, "--secret", "KEY", answers=(("KEY: ", "t0p-s3cret\n"),))
    assert typed.returncode == 0
    assert "t0p-s3cret" not in typed.shown
    assert server.asked[-1].body["set"] == [{"name": "KEY", "kind": "secret", "value": "t0p-s3cret"}]


def test_files_and_an_env_file_travel_together(server: Recorded, minuet: Command) -> None:
    (minuet.home / "config.js").write_text("window.x = 1\n")
    (minuet.home / ".env").write_text("A=1\nB='two'\n")
    found = sent(
        server, minuet, "C=3", "--from-env-file", ".env", "--file", "/app/public/config.js=config.js",
        "--secret-file", "/app/key=config.js",
    )  # fmt: skip
    assert [(entry["name"], entry["kind"]) for entry in found] == [
        ("C", "variable"),
        ("A", "variable"),
        ("B", "variable"),
        (config_sources.file_name("/app/public/config.js"), "file"),
        (config_sources.file_name("/app/key"), "secret-file"),
    ]
    assert found[3]["mountPath"] == "/app/public/config.js"
    assert found[3]["value"] == "window.x = 1\n"


def test_paths_that_read_alike_are_different_entries_and_any_path_has_a_legal_name() -> None:
    paths = ["/app/a.b", "/app/a_b", "/app/a/b", "/app/.a.b", "/app/caf\u00e9/\u6728.txt", "/" + "x" * 490, "/", "/.."]
    found = [config_sources.file_name(path) for path in paths]
    assert len(set(found)) == len(paths)
    assert config_sources.file_name("/app/config.json").startswith("app_config.json-")
    for name in found:
        model.check_entry(0, name, EntryKind.FILE, "x", "/app/any")


def test_a_file_that_is_set_again_keeps_the_name_of_its_entry(server: Recorded, minuet: Command) -> None:
    (minuet.home / "config.js").write_text("new")
    there = ({"name": "app_config_js", "kind": "file", "value": "old", "mountPath": "/app/config.js"},)
    (entry,) = sent(server, minuet, "--file", "/app/config.js=config.js", there=there)
    assert (entry["name"], entry["value"]) == ("app_config_js", "new")


def test_a_file_is_unset_by_its_path_and_a_path_that_is_not_there_is_told(server: Recorded, minuet: Command) -> None:
    there = ({"name": "app_config_js", "kind": "file", "value": "old", "mountPath": "/app/config.js"},)
    server.on(f"GET {PATH}", document({"revision": 1, "entries": there}))
    server.on(f"PATCH {PATH}", document({"revision": 2, "entries": []}))
    assert minuet("unset", "config", "web", *WHERE, "/app/config.js", "OTHER").returncode == 0
    assert server.asked[-1].body["unset"] == ["app_config_js", "OTHER"]
    wrong = minuet("unset", "config", "web", *WHERE, "/app/config.jss")
    assert wrong.returncode == 3
    assert "did you mean /app/config.js?" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("A=1", "A=2"), "A is given more than once"),
        (("--secret", "EMPTY"), "empty"),
        (("--secret", "EMPTY="), "empty"),
        (("--file", "/app/x=nowhere"), "nowhere cannot be read"),
        (("--file", "/app/x"), "/path/in/app=local-file"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    arguments: tuple[str, ...], told: str, server: Recorded, minuet: Command
) -> None:
    done = minuet("set", "config", "web", *WHERE, *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert server.asked == []


def test_a_variable_without_a_value_does_not_print_what_might_be_one(server: Recorded, minuet: Command) -> None:
    done = minuet("set", "config", "web", *WHERE, "NAME")
    assert done.returncode == 2
    assert "NAME=value" in done.stderr
