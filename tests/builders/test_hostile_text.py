"""What repositories and tools write is read in a time that grows no faster than the text does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minuet.builders import descriptor
from minuet.builders.buildpacks import go_programs, golang, node_versions, nodejs, procfile, python
from minuet.builders.buildpacks.port import Request
from minuet.builders.failure import BuildFailure
from minuet.builders.logs import BuildLog
from minuet.builders.tree import Tree
from minuet.kernel.errors import MinuetError

SMALL, FACTOR, ALLOWED = 4_000, 8, 24
"""A text eight times as long may take three times eight as long; read in square time it would take 64 times as long."""

HOSTILE = (
    "a", " ", "\n", ":", "@", "a@", ": ", "a: ", "- ", "a - ", "\t\n", ".settings", "Error", "error ", "/", "a/", "./",
    ".js", ".go", ".go:1", ":1", "go: a@b: ", "404 ", "404 Not Found - GET /", "web", "web: a ", "-r a\n", "  -r", "||", ">=",
    "DJANGO_SETTINGS_MODULE ", "DJANGO_SETTINGS_MODULE.", " was not found", "app ", "app: a ", "package main", "a b",
)  # fmt: skip

READERS: dict[str, Callable[[str], object]] = {
    "explaining an installation of Python": python._explain_install,
    "explaining a compilation of Python": python._explain_compile,
    "explaining an installation of Node.js": nodejs.explain_install,
    "explaining a build of Node.js": nodejs.explain_build,
    "explaining a syntax error of Node.js": nodejs.explain_syntax,
    "explaining a build of Go": golang._explain,
    "a range of versions": lambda text: node_versions.satisfies("20.1.2", text),
}


def cost(read: Callable[[str], object], text: str) -> float:
    """The least time that this thread needed in a few attempts, so that what else runs here does not count."""

    def once() -> float:
        began = time.thread_time()
        read(text)
        return time.thread_time() - began

    return min(once() for _ in range(3))


def grows_no_faster(read: Callable[[str], object], piece: str, end: str = "!") -> None:
    def text(size: int) -> str:
        return piece * (size // len(piece)) + end

    small = max(cost(read, text(SMALL)), 0.0005)
    assert cost(read, text(SMALL * FACTOR)) < small * ALLOWED, f"{piece!r} again and again"


@pytest.mark.parametrize("reader", READERS)
def test_what_tools_say_is_explained_in_linear_time(reader: str) -> None:
    for piece in HOSTILE:
        grows_no_faster(READERS[reader], piece)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("Procfile", lambda tree: procfile.start_command(Request(tree, {}, 1), "x")),
        (".python-version", python._pinned),
        ("requirements.txt", python._inputs),
        ("app.py", lambda tree: python._guess(tree, "")),
        ("manage.py", lambda tree: python._guess(tree, "")),
        ("main.go", lambda tree: go_programs.programs(tree, tree.read("main.go") or "")),
    ],
)
def test_files_of_a_source_are_read_in_linear_time(tmp_path: Path, name: str, read: Callable[[Tree], object]) -> None:
    def written(text: str) -> object:
        (tmp_path / name).write_text(text)
        try:
            return read(Tree(tmp_path))
        except BuildFailure as failure:
            return failure

    for piece in HOSTILE:
        grows_no_faster(written, piece)


def test_a_descriptor_of_many_keys_is_read_in_linear_time() -> None:
    def refused(text: str) -> None:
        with pytest.raises(MinuetError):
            descriptor.parse("".join(f"k{number}: 1\n" for number in range(len(text) // 20)))

    grows_no_faster(refused, "k")


def test_what_a_failure_is_explained_from_is_bounded(tmp_path: Path) -> None:
    log = BuildLog(tmp_path / "log.jsonl", 10**6)
    for _ in range(100):
        log.feed(b"x" * 100_000 + b"\n")
    assert len(log.said) <= 40 * 501
