"""Which folders of a Go module hold a program that is built here."""

from __future__ import annotations

from pathlib import Path

import pytest

from minuet.builders.buildpacks.go_programs import holds, programs
from minuet.builders.tree import Tree

MAIN = "package main\n"


def found(folder: Path, *names: str, **texts: str) -> list[tuple[str, str]]:
    for name, text in {**dict.fromkeys(names, MAIN), **texts}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return programs(Tree(folder), "module example.com/team/shop/v2\n\ngo 1.21\n")


def test_the_root_is_started_before_everything_else(tmp_path: Path) -> None:
    assert found(tmp_path, "main.go", "cmd/shop/main.go", "server/main.go")[0] == (".", "shop")


def test_the_one_command_is_started_before_examples(tmp_path: Path) -> None:
    assert found(tmp_path, "a/main.go", "server/main.go", "cmd/store/main.go")[0] == ("cmd/store", "store")


def test_of_several_commands_the_one_with_the_name_of_the_module_is_started(tmp_path: Path) -> None:
    assert found(tmp_path, "cmd/a/main.go", "cmd/shop/main.go", "cmd/server/main.go")[0] == ("cmd/shop", "shop")


@pytest.mark.parametrize(
    "name",
    ["_x/main.go", ".x/main.go", "testdata/a/main.go", "vendor/a/main.go", "a/main_test.go", "a/_main.go",
     "a/main_windows.go", "a/main_linux_mips.go", "a/main_s390x.go"],
)  # fmt: skip
def test_what_go_passes_over_is_passed_over(tmp_path: Path, name: str) -> None:
    assert found(tmp_path, name) == []


def test_another_module_within_is_another_matter(tmp_path: Path) -> None:
    (tmp_path / "example").mkdir()
    (tmp_path / "example" / "go.mod").write_text("module example.com/other\n")
    assert found(tmp_path, "main.go", "example/deep/main.go") == [(".", "shop")]


@pytest.mark.parametrize(
    ("text", "built"),
    [
        ("// A program.\npackage main\n", True),
        ("//go:build linux\n\npackage main\n", True),
        ("//go:build mage\n\npackage main\n", False),
        ("// +build ignore\n\npackage main\n", False),
        ("package shop\n\n// package main\n", False),
        ("package mainly\n", False),
    ],
)
def test_the_text_of_a_file_decides(tmp_path: Path, text: str, built: bool) -> None:
    assert bool(found(tmp_path, **{"a.go": text})) is built


@pytest.mark.parametrize(
    ("constraint", "held"),
    [
        ("linux && !cgo", True), ("linux || mage", True), ("darwin || windows", False), ("!(darwin || windows)", True),
        ("go1.18 && unix", True), ("!linux", False), ("tools", False), ("", False), ("linux &&", False), ("(linux", False),
        ("linux linux", False), ("!" * 600 + "linux", False),
    ],
)  # fmt: skip
def test_constraints_are_read_as_go_reads_them(constraint: str, held: bool) -> None:
    assert holds(constraint) is held
