"""The inventory: durable before acknowledged, refuses what does not fit, survives damage."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minuet.agent.inventory import FILE, PREVIOUS, SCHEMA_VERSION, Inventory, Position
from minuet.agent.model import Failure, Memory
from minuet.kernel.errors import Conflict
from minuet.protocol.desired import Change, Revision, Tombstone
from minuet.protocol.signing import Signer, new_signing_key, open_revision, sign_revision
from tests.given.documents import ARTIFACT, workload


def revision(number: int, *changes: Change, **fields: Any) -> Revision:
    """The first one is a snapshot, since a fresh inventory is of no epoch yet."""
    values: dict[str, Any] = {"plane": "default", "epoch": 1, "revision": number, "previous": number - 1}
    values |= {"snapshot": number == 1, "changes": changes}
    return Revision(**(values | fields))


def put(number: int, key: str = "c/e", **fields: Any) -> Revision:
    return revision(number, workload(key=key, generation=number), **fields)


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[Inventory]:
    inventory = Inventory(directory)
    try:
        yield inventory
    finally:
        inventory.close()


@pytest.fixture
def inventory(tmp_path: Path) -> Iterator[Inventory]:
    with opened(tmp_path) as found:
        yield found


def test_what_was_accepted_is_there_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path) as inventory:
        assert inventory.accept(put(1))
        inventory.remember("c/e", Memory(workload(key="c/e"), Failure(2, "ExitedAtOnce", "no", ("last line",))))
        inventory.pin("signing_key", "first")
        inventory.pin("signing_key", "second")
    with opened(tmp_path) as inventory:
        assert inventory.position == Position(1, 1)
        contents = inventory.contents()
        assert contents.workloads["c/e"].generation == 1
        assert contents.memories["c/e"] == Memory(workload(key="c/e"), Failure(2, "ExitedAtOnce", "no", ("last line",)))
        assert inventory.pinned("signing_key") == "first"


_WRITER = """
import sys
from pathlib import Path
from minuet.agent.inventory import Inventory
from tests.agent.test_inventory import put
inventory = Inventory(Path(sys.argv[1]))
for number in range(inventory.position.revision + 1, 100_000):
    inventory.accept(put(number, f"c{number % 7}/e"))
    print(number, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 8, 21])
def test_an_acknowledged_revision_survives_a_kill(tmp_path: Path, lines: int) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert writer.stdout is not None
    for _ in range(lines):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    told = [int(line) for line in writer.stdout.read().splitlines()]
    writer.wait(timeout=10)
    acknowledged = max([lines, *told])
    with opened(tmp_path) as inventory:
        assert inventory.position.revision in (acknowledged, acknowledged + 1)
        assert inventory.contents().workloads[f"c{acknowledged % 7}/e"].generation >= acknowledged - 6
        assert inventory.alarms == []


def test_an_older_revision_is_refused(inventory: Inventory) -> None:
    inventory.accept(put(1))
    inventory.accept(put(2))
    with pytest.raises(Conflict) as caught:
        inventory.accept(put(1))
    assert caught.value.code == "OldRevision"


def test_the_same_revision_again_is_no_news(inventory: Inventory) -> None:
    assert inventory.accept(put(1))
    assert not inventory.accept(put(1))


def test_the_same_revision_with_other_content_is_refused(inventory: Inventory) -> None:
    inventory.accept(put(1))
    with pytest.raises(Conflict) as caught:
        inventory.accept(put(1, "other/e", snapshot=False))
    assert caught.value.code == "RevisionAltered"
    assert set(inventory.contents().workloads) == {"c/e"}


def test_a_gap_is_refused_and_a_snapshot_bridges_it(inventory: Inventory) -> None:
    inventory.accept(put(1))
    with pytest.raises(Conflict) as caught:
        inventory.accept(put(3))
    assert caught.value.code == "RevisionGap"
    assert inventory.accept(put(3, snapshot=True, previous=0))
    assert inventory.position == Position(1, 3)


def test_a_revision_of_another_history_is_refused_although_its_number_fits(tmp_path: Path) -> None:
    with opened(tmp_path) as inventory:
        inventory.accept(put(1, digest="log-1"))
        inventory.accept(put(2, digest="log-2", previous_digest="log-1"))
    with opened(tmp_path) as inventory:
        assert (inventory.position, inventory.position.log) == (Position(1, 2), "log-2")
        for stranger in (put(3, previous_digest="log-x"), put(2, snapshot=True, digest="log-x")):
            with pytest.raises(Conflict) as caught:
                inventory.accept(stranger)
            assert caught.value.code == "LogDiverged"
        assert inventory.contents().workloads["c/e"].generation == 2
        assert inventory.accept(put(3, previous_digest="log-2", digest="log-3"))


def test_a_control_plane_that_names_no_log_is_believed(inventory: Inventory) -> None:
    inventory.accept(put(1, digest="log-1"))
    assert inventory.accept(put(2))
    assert inventory.accept(put(3, previous_digest="log-2"))
    assert inventory.accept(put(1, epoch=2, snapshot=True))
    assert (inventory.position, inventory.position.log) == (Position(2, 1), None)


def test_a_snapshot_removes_nothing_by_leaving_it_out(inventory: Inventory) -> None:
    inventory.accept(put(1, "a/e"))
    inventory.accept(put(2, "b/e", snapshot=True, previous=0))
    assert set(inventory.contents().workloads) == {"a/e", "b/e"}


def test_a_new_epoch_begins_with_a_snapshot_even_at_a_lower_number(inventory: Inventory) -> None:
    inventory.accept(put(1))
    inventory.accept(put(2))
    with pytest.raises(Conflict) as caught:
        inventory.accept(put(1, epoch=2, previous=2, snapshot=False))
    assert caught.value.code == "RevisionGap"
    assert inventory.accept(put(1, epoch=2, snapshot=True))
    with pytest.raises(Conflict):
        inventory.accept(put(3))
    assert inventory.position == Position(2, 1)


def _fleet(inventory: Inventory, count: int = 10) -> None:
    inventory.accept(revision(1, *(workload(key=f"c{number}/e") for number in range(count))))


def _tombstones(count: int, by: str | None = None) -> list[Tombstone]:
    return [Tombstone(key=f"c{number}/e", confirmed_by=by) for number in range(count)]


def test_many_unconfirmed_tombstones_are_held_and_nothing_is_removed(inventory: Inventory) -> None:
    _fleet(inventory)
    inventory.accept(revision(2, *_tombstones(3)))
    contents = inventory.contents()
    assert len(contents.workloads) == 10
    assert contents.held == {"c0/e", "c1/e", "c2/e"}
    assert any("held" in alarm for alarm in inventory.alarms)


def test_confirmed_tombstones_are_carried_out_also_after_they_were_held(inventory: Inventory) -> None:
    _fleet(inventory)
    inventory.accept(revision(2, *_tombstones(3)))
    inventory.accept(revision(3, *_tombstones(3, by="req_1")))
    contents = inventory.contents()
    assert len(contents.workloads) == 7
    assert contents.tombstones == {"c0/e", "c1/e", "c2/e"}
    assert not contents.held


def test_a_snapshot_that_repeats_old_tombstones_holds_nothing(inventory: Inventory) -> None:
    _fleet(inventory)
    inventory.accept(revision(2, *_tombstones(3, by="req_1")))
    inventory.accept(revision(3, *_tombstones(3), snapshot=True, previous=0))
    assert not inventory.contents().held


def test_a_tombstone_of_something_unknown_is_kept_so_that_its_removal_is_told(inventory: Inventory) -> None:
    inventory.accept(revision(1, Tombstone(key="gone/e", confirmed_by="req_1"), snapshot=True))
    assert inventory.contents().tombstones == {"gone/e"}


def test_forgetting_spares_a_workload_that_was_declared_again(inventory: Inventory) -> None:
    inventory.accept(put(1))
    inventory.accept(revision(2, Tombstone(key="c/e", confirmed_by="req_1")))
    inventory.accept(put(3))
    inventory.forget("c/e")
    assert inventory.contents().workloads["c/e"].generation == 3


def test_what_served_before_a_removal_does_not_come_back_with_a_new_document(inventory: Inventory) -> None:
    inventory.accept(put(1))
    inventory.remember("c/e", Memory(workload(key="c/e"), None))
    inventory.accept(revision(2, Tombstone(key="c/e", confirmed_by="req_1")))
    inventory.accept(put(3))
    assert inventory.contents().memories == {}


def _unreadable(number: int) -> Revision:
    """A revision of two documents, signed; one has a port that this version does not allow."""
    signer = Signer(new_signing_key())
    good, bad = workload(key="good/e", generation=number), workload(key="c/e", generation=number)
    content = json.loads(revision(number, good, bad).wire())
    content["changes"][1]["routes"][0]["protocol"] = "gopher"
    payload = json.dumps(content)
    signed = sign_revision(signer, revision(number)).model_copy(
        update={"payload": payload, "signature": signer.sign(payload.encode())}
    )
    return open_revision(signer.public_key, signed)


def test_a_document_that_cannot_be_read_is_set_aside_and_the_one_before_it_stays(tmp_path: Path) -> None:
    with opened(tmp_path) as inventory:
        inventory.accept(put(1))
        inventory.accept(_unreadable(2))
    with opened(tmp_path) as inventory:
        contents = inventory.contents()
        assert inventory.position == Position(1, 2)
        assert contents.workloads["c/e"].generation == 1
        assert contents.workloads["good/e"].generation == 2
        assert contents.aside["c/e"].generation == 2
        assert "protocol" in contents.aside["c/e"].problem
        inventory.accept(put(3))
        assert not inventory.contents().aside


def test_a_document_set_aside_is_taken_once_it_can_be_read(tmp_path: Path) -> None:
    with opened(tmp_path) as inventory:
        inventory.accept(_unreadable(1))
        lost = inventory.contents().aside["c/e"]
        readable = lost.model_copy(update={"body": lost.body.replace("gopher", "http")})
        inventory._db.execute("UPDATE aside SET content = ?", (readable.wire(),))
    with opened(tmp_path) as inventory:
        assert inventory.contents().workloads["c/e"].generation == 1
        assert not inventory.contents().aside


def test_a_revision_counts_although_its_second_generation_cannot_be_written(inventory: Inventory, tmp_path) -> None:
    (tmp_path / f".{PREVIOUS}.new").mkdir()
    assert inventory.accept(put(1))
    assert any("second generation" in alarm for alarm in inventory.alarms)


# The way back.


def _served(inventory: Inventory, *digits: str, key: str = "c/e") -> None:
    for digit in digits:
        artifact = ARTIFACT.model_copy(update={"digest": digit})
        inventory.remember(key, Memory(workload(key=key, artifact=artifact), None))


def test_the_last_four_artifacts_that_served_are_remembered_per_workload(tmp_path: Path) -> None:
    with opened(tmp_path) as inventory:
        _served(inventory, *"abcdeb")
        _served(inventory, *"xy", key="d/e")
    with opened(tmp_path) as inventory:
        assert inventory.contents().recent == {"c/e": ("c", "d", "e", "b"), "d/e": ("x", "y")}
        inventory.accept(revision(1, Tombstone(key="c/e", confirmed_by="req_1")))
        inventory.forget("c/e")
        assert inventory.contents().recent == {"d/e": ("x", "y")}


def test_a_file_of_an_agent_that_kept_no_way_back_is_brought_up_to_date(tmp_path: Path) -> None:
    with opened(tmp_path) as inventory:
        inventory.accept(put(1))
        _served(inventory, "a")
        inventory._db.executescript("DROP TABLE recent; PRAGMA user_version = 0")
    with opened(tmp_path) as inventory:
        assert inventory.contents().recent == {"c/e": ("a",)}
        assert inventory._db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert inventory.position == Position(1, 1)


def test_a_file_of_a_newer_agent_is_left_as_it_is(tmp_path: Path) -> None:
    with opened(tmp_path) as inventory:
        inventory.accept(put(1))
        inventory._db.executescript("ALTER TABLE pins ADD COLUMN note TEXT; PRAGMA user_version = 999")
    with opened(tmp_path) as inventory:
        assert inventory._db.execute("PRAGMA user_version").fetchone() == (999,)
        assert inventory.position == Position(1, 1)


# Damage.


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An inventory of twelve documents whose write-ahead log is folded in."""
    directory = tmp_path_factory.mktemp("inventory")
    with opened(directory) as inventory:
        for number in range(1, 13):
            inventory.accept(put(number, f"c{number}/e"))
    return directory


def _damaged(sound: Path, target: Path, change: Any) -> None:
    shutil.copytree(sound, target, dirs_exist_ok=True)
    path = target / FILE
    path.write_bytes(change(path.read_bytes()))


def _everything_is_known(directory: Path) -> None:
    with opened(directory) as inventory:
        contents = inventory.contents()
        assert inventory.position == Position(1, 12)
        assert set(contents.workloads) == {f"c{number}/e" for number in range(1, 13)}


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_file_cut_short_gives_way_to_the_previous_generation(sound: Path, tmp_path: Path, share: float) -> None:
    _damaged(sound, tmp_path, lambda data: data[: int(len(data) * share)])
    _everything_is_known(tmp_path)


def test_a_missing_file_gives_way_to_the_previous_generation(sound: Path, tmp_path: Path) -> None:
    _damaged(sound, tmp_path, lambda data: data)
    (tmp_path / FILE).unlink()
    _everything_is_known(tmp_path)


@pytest.mark.parametrize("place", range(0, 1000, 8))
def test_bytes_that_were_altered_anywhere_cost_nothing(sound: Path, tmp_path: Path, place: int) -> None:
    def alter(data: bytes) -> bytes:
        at = len(data) * place // 1000
        return data[:at] + bytes(byte ^ 0x5A for byte in data[at : at + 16]) + data[at + 16 :]

    _damaged(sound, tmp_path, alter)
    _everything_is_known(tmp_path)


def test_both_generations_damaged_leaves_nothing_known_and_an_alarm(sound: Path, tmp_path: Path) -> None:
    _damaged(sound, tmp_path, lambda data: b"\xff" * len(data))
    (tmp_path / PREVIOUS).write_bytes(b"not a database")
    with opened(tmp_path) as inventory:
        assert inventory.position == Position()
        assert any("both" in alarm or "previous generation were damaged" in alarm for alarm in inventory.alarms)
        assert inventory.accept(put(12, snapshot=True))
    assert (tmp_path / f"{FILE}.damaged").exists()


def test_a_document_damaged_while_the_agent_runs_is_left_out_and_told_once(inventory: Inventory) -> None:
    _fleet(inventory, 2)
    inventory._db.execute("UPDATE documents SET body = replace(body, 'shop', 'shed') WHERE key = 'c0/e'")
    for _ in range(3):
        assert set(inventory.contents().workloads) == {"c1/e"}
    assert len(inventory.alarms) == 1


def test_a_memory_that_is_damaged_is_left_out(inventory: Inventory) -> None:
    inventory.remember("c/e", Memory(workload(key="c/e"), None))
    inventory._db.execute("UPDATE memory SET serving = 'x'")
    assert inventory.contents().memories == {}
    assert len(inventory.alarms) == 1


def test_a_position_that_was_altered_is_not_believed(tmp_path: Path) -> None:
    with opened(tmp_path) as inventory:
        inventory.accept(put(1))
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.execute("UPDATE position SET revision = 7")
        db.commit()
    with opened(tmp_path) as inventory:
        assert inventory.position == Position(1, 1)
