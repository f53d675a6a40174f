"""Trees that strangers made: measured, opened and removed, however deep; and children that hold nothing of others."""

import os
import sys
from pathlib import Path

from minuet.launcher import trees, wire
from minuet.launcher.loop import Loop

DEEP = sys.getrecursionlimit() + 100
EVERY = 50
LONG = "long" * 20
MIB = 1024 * 1024


def dig(folder: Path, depth: int) -> None:
    """Nested folders whose whole path is longer than the kernel takes, some beside another, with a file at the end."""
    fd = os.open(folder, os.O_RDONLY)
    for level in range(depth):
        os.mkdir(LONG, dir_fd=fd)
        if level % EVERY == 0:
            os.mkdir("beside", dir_fd=fd)
        deeper = os.open(LONG, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    file = os.open("file", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=fd)
    os.ftruncate(file, MIB)
    os.close(file)
    os.close(fd)


def test_a_deep_tree_is_measured_opened_and_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    dig(top, DEEP)
    assert trees.size_of(top) >= MIB
    assert trees.open_to_group(top) >= MIB
    assert sum(1 for _ in trees.walk(top)) == DEEP + DEEP // EVERY + 1
    trees.remove(top)
    assert not top.exists()
    trees.remove(top)


def test_a_file_counts_once_and_with_its_holes(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    os.truncate(tmp_path / "one", MIB)
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    (tmp_path / "link").symlink_to("/usr")
    assert MIB <= trees.size_of(tmp_path) < 2 * MIB


def test_what_a_command_closed_is_opened_for_the_group_and_for_nobody_else(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "file").write_text("x")
    (inner / "file").chmod(0o604)
    inner.chmod(0)
    trees.open_to_group(tmp_path)
    assert (inner.stat().st_mode & 0o777, (inner / "file").stat().st_mode & 0o777) == (0o770, 0o660)


def test_a_child_of_the_loop_holds_no_descriptor_of_others() -> None:
    loop, kept, answers = Loop(), os.memfd_create("kept"), list[wire.Message]()
    other = os.memfd_create("other")

    def look() -> wire.Message:
        return {"open": [fd for fd in (kept, other) if Path(f"/proc/self/fd/{fd}").exists()]}

    def done(answer: wire.Message) -> None:
        answers.append(answer)
        loop.stop()

    loop.in_child(look, done, keep=(kept,))
    loop.run(lambda callback: callback())
    assert answers == [{"open": [kept]}]
    for fd in (kept, other):
        os.close(fd)
