"""Where the start command comes from, and Procfiles as they are really written."""

from __future__ import annotations

from pathlib import Path

import pytest

from minuet.builders.buildpacks.port import Request
from minuet.builders.buildpacks.procfile import start_command
from minuet.builders.failure import BuildFailure
from minuet.builders.tree import Tree


def request(tmp_path: Path, procfile: str | None, **config: str) -> Request:
    if procfile is not None:
        (tmp_path / "Procfile").write_text(procfile)
    return Request(Tree(tmp_path), config, 8080)


@pytest.mark.parametrize(
    ("procfile", "command"),
    [
        ("web: python app.py", "python app.py"),
        ("web:php -S 0.0.0.0:$PORT", "php -S 0.0.0.0:$PORT"),
        ("  web  :   ./server --port=$PORT  \r\n", "./server --port=$PORT"),
        ("# web: no\nworker: celery\nweb: gunicorn app:app # fast", "gunicorn app:app # fast"),
        ("release: migrate\nweb: a\nweb: b", "b"),
        ("job: python task.py", "python task.py"),
        ("web: java -jar target/*.jar", "java -jar target/*.jar"),
        ("\ufeffweb: x", "x"),
        ("web: a:b", "a:b"),
    ],
)
def test_a_procfile_is_read(tmp_path: Path, procfile: str, command: str) -> None:
    assert start_command(request(tmp_path, procfile), None) == command


def test_the_configuration_wins_over_the_procfile_and_that_over_a_guess(tmp_path: Path) -> None:
    assert start_command(request(tmp_path, "web: a", runCommand=" b "), "c") == "b"
    assert start_command(request(tmp_path, "web: a", runCommand=" "), "c") == "a"
    assert start_command(request(tmp_path, "", runCommand=""), "c") == "c"


@pytest.mark.parametrize("procfile", [None, "", "web:", "web:  ", "just text", ": x"])
def test_without_any_the_failure_says_what_is_looked_for(tmp_path: Path, procfile: str | None) -> None:
    with pytest.raises(BuildFailure, match="Procfile") as caught:
        start_command(request(tmp_path, procfile), None)
    assert caught.value.reason == "StartCommandMissing"
