"""What lies on disk survives a crash at any moment, and is not believed when it is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from minuet.gateway.compiler import Compiled, compile_table
from minuet.gateway.model import RoutingTable
from minuet.gateway.snapshot import FILES, GOOD, Snapshot
from tests.given.gateway import table


def _compiled(*ports: int) -> Compiled:
    return compile_table(table(*ports), "127.0.0.1", 8480)


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    return Snapshot(tmp_path)


def test_what_was_written_is_read_back(snapshot: Snapshot) -> None:
    snapshot.write(_compiled(1, 2))
    assert snapshot.read() == _compiled(1, 2)


def test_nothing_there_is_nothing_read(snapshot: Snapshot) -> None:
    assert snapshot.read() is None
    assert not snapshot.restore_good()


@pytest.mark.parametrize("name", FILES.values())
def test_a_file_torn_at_any_byte_is_noticed_and_the_accepted_set_comes_back(
    snapshot: Snapshot, tmp_path: Path, name: str
) -> None:
    snapshot.write(_compiled(1))
    snapshot.keep_as_good()
    whole = (tmp_path / name).read_bytes()
    for length in range(0, len(whole) - 2, max(1, len(whole) // 40)):
        (tmp_path / name).write_bytes(whole[:length])
        assert snapshot.read() is None
        assert snapshot.restore_good()
        assert snapshot.read() == _compiled(1)


@pytest.mark.parametrize("name", FILES.values())
def test_a_file_that_is_gone_is_noticed(snapshot: Snapshot, tmp_path: Path, name: str) -> None:
    snapshot.write(_compiled(1))
    (tmp_path / name).unlink()
    assert snapshot.read() is None


def test_a_changed_byte_is_noticed(snapshot: Snapshot, tmp_path: Path) -> None:
    snapshot.write(_compiled(8081))
    file = tmp_path / FILES["clusters"]
    file.write_bytes(file.read_bytes().replace(b"8081", b"8082"))
    assert snapshot.read() is None


def test_an_accepted_set_that_is_damaged_is_not_put_back(snapshot: Snapshot, tmp_path: Path) -> None:
    snapshot.write(_compiled(8081))
    snapshot.keep_as_good()
    good = (tmp_path / GOOD).read_bytes()
    snapshot.write(_compiled(8083))
    for damaged in (good.replace(b"8081", b"8082"), good[:-10], b"", b"no checksum"):
        (tmp_path / GOOD).write_bytes(damaged)
        assert not snapshot.restore_good()
        assert snapshot.read() == _compiled(8083)


def test_the_accepted_set_outlives_newer_files(snapshot: Snapshot) -> None:
    snapshot.write(_compiled(1))
    snapshot.keep_as_good()
    snapshot.write(_compiled(2))
    assert snapshot.restore_good()
    assert snapshot.read() == _compiled(1)


def test_an_empty_table_is_a_snapshot_like_any_other(snapshot: Snapshot) -> None:
    empty = compile_table(RoutingTable(), "127.0.0.1", 8480)
    snapshot.write(empty)
    assert snapshot.read() == empty
