"""Archives of trees that somebody else filled."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minuet.builders.sbom import node_packages
from minuet.builders.tree import EPOCH, Tree, archive


def packed(root: Path, leave_out: frozenset[str] = frozenset(), said: list[str] | None = None) -> bytes:
    buffer = io.BytesIO()
    archive(root, leave_out, (said if said is not None else []).append)(buffer)
    return buffer.getvalue()


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member for member in tar.getmembers()}


def fill(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return root


def test_equal_trees_give_equal_bytes_whatever_their_history(tmp_path: Path) -> None:
    names = ["b", "a/c", "a/b", "z"]
    one, two = fill(tmp_path / "one", names), fill(tmp_path / "two", names[::-1])
    os.utime(two / "z", (1, 1))
    (two / "b").chmod(0o600)
    assert packed(one) == packed(two)
    assert all((m.uid, m.gid, m.uname, m.mtime) == (0, 0, "", EPOCH) for m in members(packed(one)).values())


def test_what_is_left_out_is_left_out_with_all_below_it(tmp_path: Path) -> None:
    fill(tmp_path, [".git/config", "src/.git/x", "app.py"])
    assert set(members(packed(tmp_path, frozenset({".git"})))) == {"app.py", "src", "src/.git", "src/.git/x"}


@pytest.mark.parametrize(
    ("target", "stays"),
    [
        ("a", True), ("sub/../a", True), ("/app/a", True), ("/usr/bin/python3", True), ("/layers/x/y", True),
        ("../outside", False), ("sub/../../outside", False), ("/etc/shadow", False), ("/root/.ssh", False),
        ("/app/../etc/shadow", False), ("/usr/../root", False),
    ],
)  # fmt: skip
def test_links_out_of_the_tree_are_left_out_and_told(tmp_path: Path, target: str, stays: bool) -> None:
    fill(tmp_path, ["a"])
    (tmp_path / "link").symlink_to(target)
    said: list[str] = []
    assert ("link" in members(packed(tmp_path, said=said))) is stays
    assert stays or (target in said[0] and "link" in said[0])


def test_a_link_in_a_folder_counts_from_that_folder(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "sub/b"])
    (tmp_path / "sub/up").symlink_to("../a")
    (tmp_path / "sub/out").symlink_to("../../a")
    names = members(packed(tmp_path))
    assert "sub/up" in names
    assert "sub/out" not in names


def test_pipes_and_sockets_are_left_out_and_hard_links_stored_as_files(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    said: list[str] = []
    found = members(packed(tmp_path, said=said))
    assert set(found) == {"a", "b"}
    assert all(member.isreg() and member.size for member in found.values())
    assert "pipe" in said[0]


@pytest.mark.parametrize(
    "name", [b"-rf", b"a\nb", b"\xff\xfe", b"\x1b[31mred", b"  ", "ü".encode(), b"n" * 255, b"..a", b"a\\b"]
)
def test_a_nasty_name_survives(tmp_path: Path, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    assert [os.fsencode(found) for found in members(packed(tmp_path))] == [name]


def test_deep_paths_survive(tmp_path: Path) -> None:
    name = "/".join(["folder-with-a-long-name"] * 20)
    fill(tmp_path, [f"{name}/file"])
    assert f"{name}/file" in members(packed(tmp_path))


def nested(root: Path, name: str, levels: int) -> Path:
    for _ in range(levels):
        root = root / name
        root.mkdir()
    return root


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder that may be filled deeper than Python itself can remove again."""
    yield tmp_path
    subprocess.run(["rm", "-rf", "--", str(tmp_path)], check=True)


def test_folders_nested_deeper_than_a_stack_are_packed(deep: Path) -> None:
    (nested(deep, "d", 1100) / "leaf.go").write_text("x")
    assert len(members(packed(deep))) == 1101
    assert list(Tree(deep).files(".go", 10)) == ["d/" * 1100 + "leaf.go"]


def test_packages_nested_deeper_than_a_stack_are_listed(deep: Path) -> None:
    package = nested(deep, "@s", 1100) / "n"
    package.mkdir()
    (package / "package.json").write_text('{"name": "n", "version": "1"}')
    assert [name for name, _, _ in node_packages(deep)] == ["n"]


def test_a_digest_tells_names_and_contents_below_a_path(tmp_path: Path) -> None:
    fill(tmp_path, ["lib/a", "lib/in/b", "other", ".git/x", "library"])
    tree = Tree(tmp_path)
    before = tree.digest("lib", 1000)
    (tmp_path / "other").write_text("changed")
    assert tree.digest("lib", 1000) == before
    (tmp_path / "lib/in/b").write_text("changed")
    assert tree.digest("lib", 1000) not in (before, None)
    assert tree.digest("lib", 10) is None


def test_modes_keep_only_whether_a_file_can_be_run(tmp_path: Path) -> None:
    fill(tmp_path, ["run", "read"])
    (tmp_path / "run").chmod(0o6711)
    (tmp_path / "read").chmod(0o666)
    found = members(packed(tmp_path))
    assert (found["run"].mode, found["read"].mode) == (0o755, 0o644)


@pytest.mark.parametrize(
    "name", ["link", "folder/file", "../secret", "pipe", "missing", "folder-link/file", "sub", "a\0b"]
)
def test_reading_is_never_led_out_of_the_tree(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "link").symlink_to("../secret")
    (root / "folder").symlink_to("..")
    (root / "folder-link").symlink_to("/etc")
    os.mkfifo(root / "pipe")
    assert Tree(root).read(name) is None


def test_a_small_file_is_read_without_its_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_bytes(b"\xef\xbb\xbfweb: x\xff")
    assert Tree(tmp_path).read("Procfile") == "web: x\ufffd"
    assert Tree(tmp_path).read("Procfile", 6) == "web"
