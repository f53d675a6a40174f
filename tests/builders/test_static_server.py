"""The server inside every static artifact: files, front ends' own pages, and what is missing."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minuet.builders.buildpacks import static_server
from tests.given.platform import eventually, free_port

Ask = Callable[[str], tuple[int, bytes]]


def asking(port: int) -> Ask:
    def ask(path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    return ask


@pytest.fixture(params=[(), ("--single-page",)], ids=["static", "single-page"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Ask, bool]]:
    (tmp_path / "index.html").write_text("the front end")
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets/app.js").write_text("1")
    port = free_port()
    program = [sys.executable, "-I", str(Path(static_server.__file__)), str(tmp_path), *request.param]
    process = subprocess.Popen(program, env={"PORT": str(port)}, stderr=subprocess.DEVNULL)
    ask = asking(port)

    def answers() -> bool:
        try:
            return ask("/")[0] == 200
        except OSError:
            return False

    try:
        eventually(answers, 20, "the server answers")
        yield ask, bool(request.param)
    finally:
        process.terminate()
        process.wait(10)


def test_files_are_served_and_missing_assets_are_missing(served: tuple[Ask, bool]) -> None:
    ask, _ = served
    assert ask("/") == (200, b"the front end")
    assert ask("/assets/app.js") == (200, b"1")
    assert ask("/assets/gone.js")[0] == ask("/gone.png?x=1")[0] == ask("/../../etc/passwd.txt")[0] == 404


def test_a_deep_link_is_the_front_ends_own_matter(served: tuple[Ask, bool]) -> None:
    ask, single = served
    expected = (200, b"the front end") if single else (404, b"404 Not Found\n")
    assert ask("/orders/17") == ask("/x/y/") == ask("/orders?page=2.5") == expected
