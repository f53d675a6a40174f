"""The documentation says what the code does, and names everything it should."""

import tomllib
from pathlib import Path

import pytest
from scripts import reference

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", reference.pages())
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert (reference.PAGES / name).read_text() == reference.pages()[name], "run `make reference`"


def test_every_command_has_help_and_an_example() -> None:
    missing = [
        " ".join(path)
        for path, command in reference._walk(reference.cli, ("minuet",))
        if not command.help or ("Example" not in command.help and path[1] != "context")
    ]
    assert missing == []


def test_every_direct_dependency_has_an_owner_and_a_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    told = (ROOT / "docs" / "dependencies.md").read_text()
    names = [line.split(">")[0].split("[")[0].split(";")[0].strip() for line in project["dependencies"]]
    assert [name for name in names if name not in told] == []


def test_every_decision_is_listed() -> None:
    decisions = ROOT / "docs" / "decisions"
    listed = (decisions / "index.md").read_text()
    assert [path.name for path in decisions.glob("0*.md") if path.stem not in listed] == []


def test_no_page_names_a_place_of_one_machine() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert [page.name for page in pages if "/work/" in page.read_text() or "/home/" in page.read_text()] == []
