"""Hosted repositories over the smart protocol, as the real Git speaks it: what is pushed is what is fetched."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
import urllib.request
from pathlib import Path

import pytest

from tests.given.platform import eventually
from tests.given.repository import Repository
from tests.given.workbench import Workbench


def pushed(bench: Workbench, project: str, size: int, *options: str) -> Repository:
    """A repository with a file of random bytes, pushed to the hosted one of that project."""
    source = bench.repository({"random": os.urandom(size), "README.md": project})
    source.git(*options, "push", bench.remote(project), "main")
    return source


def cloned(bench: Workbench, project: str, path: Path) -> bytes:
    Repository(path).git("pull", "-q", bench.remote(project), "main")
    return (path / "random").read_bytes()


@pytest.mark.parametrize("size", [300 * 1024, 5 * 2**20])
def test_a_large_push_arrives_as_it_was_sent(bench: Workbench, tmp_path: Path, size: int) -> None:
    source = pushed(bench, f"large-{size}", size)
    assert cloned(bench, f"large-{size}", tmp_path / "clone") == (source.path / "random").read_bytes()


def test_several_large_pushes_at_once_arrive_whole(bench: Workbench, tmp_path: Path) -> None:
    source = bench.repository({"random": os.urandom(2**20)})
    for name in ("one", "two", "three"):
        source.git("branch", name)
    source.git("-c", "http.postBuffer=65536", "push", bench.remote("several"), "--all")
    assert cloned(bench, "several", tmp_path / "clone") == (source.path / "random").read_bytes()


def test_a_compressed_request_of_a_fetch_is_understood(bench: Workbench) -> None:
    """Git compresses what it has when it asks for more than a kilobyte; here that is done by hand."""
    source = pushed(bench, "compressed", 10)
    head = source.git("rev-parse", "HEAD").stdout.strip()
    have = "".join(f"0032have {number:040x}\n" for number in range(40))
    body = f"0032want {head}\n0000{have}0009done\n".encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{bench.port}/git/default/compressed.git/git-upload-pack",
        gzip.compress(body),
        {
            "Authorization": "Bearer token",
            "Content-Encoding": "gzip",
            "Content-Type": "application/x-git-upload-pack-request",
        },
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert b"PACK" in answer.read()


def test_a_push_that_is_cut_off_leaves_nothing_behind(bench: Workbench) -> None:
    pushed(bench, "cut", 10)
    exchange = bench.directory / "exchange"
    with socket.create_connection(("127.0.0.1", bench.port)) as connection:
        connection.sendall(
            b"POST /git/default/cut.git/git-receive-pack HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\n"
            b"Content-Type: application/x-git-receive-pack-request\r\nContent-Length: 1000000\r\n\r\n0094"
        )
        eventually(lambda: any(exchange.iterdir()), 10, "the push has begun")
    eventually(lambda: not any(exchange.iterdir()), 20, "the folder of the push is removed")
    assert "never retrieved" not in bench.own_log()
    pushed(bench, "cut-again", 10)


def test_a_push_tells_the_control_plane_what_changed(bench: Workbench) -> None:
    bench.orders.pushes.clear()
    source = bench.repository({"a/app.py": "text that stays the same\n" * 20})
    told = source.git("push", bench.remote("told"), "main").stderr
    assert "remote: No component of told builds from main; nothing to build." in told
    source.git("mv", "a", "b")
    source.commit({})
    source.git("push", bench.remote("told"), "main")
    first, second = bench.orders.pushes
    assert (first["before"], first["changedPaths"]) == ("0" * 40, [])
    assert second["changedPaths"] == ["a/app.py", "b/app.py"]
    assert "everything" not in second


def test_a_repository_that_was_kept_under_names_is_taken_over(bench: Workbench, tmp_path: Path) -> None:
    source = pushed(bench, "older", 10)
    repositories = bench.directory / "repositories"
    (repositories / "default").mkdir(exist_ok=True)
    shutil.chown(repositories / "default", repositories.stat().st_uid)
    (repositories / "prj_older.git").rename(repositories / "default" / "older.git")
    assert cloned(bench, "older", tmp_path / "clone") == (source.path / "random").read_bytes()
    assert (repositories / "prj_older.git").is_dir()


def test_what_a_build_writes_into_a_pushed_folder_is_exported(bench: Workbench) -> None:
    project = (
        '{"name": "a", "scripts": {"start": "node a.js", "build": "mkdir in/new && echo 1 | tee in/new/made in/made"}}'
    )
    source = bench.repository({"package.json": project, "a.js": "1\n", "in/there": "1\n"})
    source.git("push", bench.remote("folders"), "main")
    built = bench.build(None, project="folders", project_id="prj_folders")
    assert built.read("in/made") == built.read("in/new/made") == b"1\n"


def test_a_history_that_an_old_tool_wrote_is_accepted(bench: Workbench) -> None:
    source = bench.repository({"in/a": "1\n"})
    inner = source.git("rev-parse", "HEAD:in").stdout.strip()
    padded = source.path / "tree"
    padded.write_bytes(b"040000 in\0" + bytes.fromhex(inner))
    tree = source.git("hash-object", "-t", "tree", "--literally", "-w", str(padded)).stdout.strip()
    commit = source.git("commit-tree", tree, "-m", "old").stdout.strip()
    source.git("push", bench.remote("old-tools"), f"{commit}:refs/heads/main")
    assert commit in source.git("ls-remote", bench.remote("old-tools")).stdout
