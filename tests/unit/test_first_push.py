"""The push of the sample: always the same commit, told as it goes, ended when it is cancelled."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from minuet.kernel.errors import NotReady
from minuet.server import first_app
from minuet.server.first_push import Push, Remote
from tests.given.repository import Repository

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / first_app.SAMPLE


def pretend_git(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program called `git` that does what the script says."""
    program = folder / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_the_same_files_make_the_same_commit_whenever_and_wherever(tmp_path: Path) -> None:
    assert Push(tmp_path / "one").commit(SAMPLE) == Push(tmp_path / "two").commit(SAMPLE)


def test_a_second_push_finds_its_commit_there_and_says_so(tmp_path: Path) -> None:
    Repository(tmp_path / "remote").git("config", "core.bare", "true")
    remote = Remote(str(tmp_path / "remote"), "token")
    for number, is_new in enumerate((True, False)):
        push = Push(tmp_path / f"work-{number}")
        push.commit(SAMPLE)
        assert push.send(remote, lambda _: None) is is_new


def test_what_another_history_left_on_the_branch_is_replaced(tmp_path: Path) -> None:
    older = Repository(tmp_path / "remote")
    older.commit({"app.py": "older"})
    older.git("config", "core.bare", "true")
    push = Push(tmp_path / "work")
    commit = push.commit(SAMPLE)
    assert push.send(Remote(str(older.path), "token"), lambda _: None) is True
    assert older.git("rev-parse", "main").stdout.strip() == commit


def test_each_line_is_told_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "gate")
    (tmp_path / "work").mkdir()
    pretend_git(
        tmp_path, monkeypatch, f'echo "remote: first" >&2; read line < {tmp_path}/gate; echo "remote: $line" >&2'
    )
    said = []

    def talk(line: str) -> None:
        said.append(line)
        if line == "remote: first":
            (tmp_path / "gate").write_text("second\n")

    Push(tmp_path / "work").send(Remote("http://127.0.0.1:1/git", "token"), talk)
    assert said == ["remote: first", "remote: second"]


def test_a_push_that_is_cancelled_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    pretend_git(tmp_path, monkeypatch, 'echo "remote: building" >&2; exec sleep 600')
    push = Push(tmp_path / "work")
    with pytest.raises(NotReady):
        push.send(Remote("http://127.0.0.1:1/git", "token"), lambda _: threading.Thread(target=push.cancel).start())


def test_the_token_stands_in_no_argument_and_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    pretend_git(tmp_path, monkeypatch, 'echo "$@" >&2')
    said: list[str] = []
    remote = Remote("http://127.0.0.1:1/git", "mnt_secret")
    Push(tmp_path / "work").send(remote, said.append)
    assert "mnt_secret" not in str(said) + repr(remote)
    assert "mnt_secret" in str(remote.environment())
