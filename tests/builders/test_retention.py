"""What a builder keeps and for how long; archives that are the same everywhere."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from pathlib import Path

from minuet.builders.logs import remove_old
from minuet.builders.store import Store
from minuet.builders.tree import archive


def layer(store: Store, key: str, size: int, age: float) -> str:
    digest, _ = store.put_written(lambda file: file.write(key.encode() * size) and None, size)  # type: ignore[func-returns-value]
    store.remember(key, {"digest": digest, "size": size})
    path = store._directory / "cache" / f"{key}.json"
    os.utime(path, (path.stat().st_mtime - age,) * 2)
    return digest


def test_what_an_artifact_names_outlives_any_limit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    named, old, new = layer(store, "a", 1000, 300), layer(store, "b", 1000, 200), layer(store, "c", 1000, 100)
    bill = store.put(b"bill")
    manifest = store.put_manifest(json.dumps({"layers": [{"digest": named}], "sbom": bill}).encode(), "bld_1")
    assert store.prune(1500) == 1000
    assert (store.has(named), store.has(old), store.has(new), store.has(bill)) == (True, False, True, True)
    assert store.prune(0) == 1000
    assert (store.has(named), store.has(manifest), store.has(bill), store.cached("a")) == (
        True,
        True,
        True,
        {"digest": named, "size": 1000},
    )
    assert store.cached("c") is None


def artifact(store: Store, build: str, *layers: str, bill: bytes = b"bill") -> str:
    named = [{"digest": digest} for digest in layers]
    document = {"layers": named, "sbom": store.put(bill), "of": build.partition("-")[0]}
    return store.put_manifest(json.dumps(document).encode(), build)


def test_an_artifact_goes_with_the_last_build_that_made_it_and_takes_what_it_alone_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    own, shared, remembered = store.put(b"own"), store.put(b"shared"), layer(store, "a", 10, 0)
    first = artifact(store, "one", own, shared, remembered)
    assert artifact(store, "one-again", own, shared, remembered) == first
    other = artifact(store, "two", shared)
    later = time.time() + 60
    assert store.release({"one"}, later) == 0
    assert store.release({"one", "one-again"}, before=0) == 0, "what is young is kept whoever holds it"
    assert store.release({"one", "one-again"}, later) == 1
    held = {digest: store.has(digest) for digest in (first, own, shared, remembered, other)}
    assert held == {first: False, own: False, shared: True, remembered: True, other: True}
    assert store.builds() == {"two"}


def test_what_was_used_lately_goes_last(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = layer(store, "a", 1000, 300), layer(store, "b", 1000, 200)
    assert store.cached("a")
    store.prune(1000)
    assert (store.has(first), store.has(second)) == (True, False)


def test_a_start_removes_what_a_crash_left_half_written(tmp_path: Path) -> None:
    key = Store(tmp_path).signer.public_key
    (tmp_path / "blobs/.new-abc").write_bytes(b"half")
    again = Store(tmp_path)
    assert list((tmp_path / "blobs").iterdir()) == []
    assert again.signer.public_key == key
    assert (tmp_path / "signing.key").stat().st_mode & 0o777 == 0o600


def test_an_archive_depends_on_nothing_but_content_and_the_right_to_run(tmp_path: Path) -> None:
    made = []
    for number, mode in ((1, 0o600), (2, 0o664)):
        root = tmp_path / str(number)
        (root / "b").mkdir(parents=True)
        for name in ("b/two", "a", "run") if number == 1 else ("run", "a", "b/two"):
            (root / name).write_text(name)
            (root / name).chmod(mode)
        (root / "run").chmod(mode | 0o100)
        os.utime(root / "a", (number, number))
        file = io.BytesIO()
        archive(root)(file)
        made.append(file.getvalue())
    assert made[0] == made[1]
    with tarfile.open(fileobj=io.BytesIO(made[0])) as tar:
        assert [(item.name, item.mode, item.uid) for item in tar] == [
            ("a", 0o644, 0), ("b", 0o755, 0), ("b/two", 0o644, 0), ("run", 0o755, 0),
        ]  # fmt: skip


def test_links_are_kept_where_they_stay_and_left_out_where_they_lead_away(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    links = {"in/fine": "../a", "in/away": "../../a", "in/python": "/usr/bin/python3", "in/secret": "/etc/shadow",
             "in/trick": "/app/../etc/shadow", "in/other": "../../../layers/x"}  # fmt: skip
    for name, target in links.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe")
    said: list[str] = []
    file = io.BytesIO()
    archive(root, say=said.append, at="/app/sub")(file)
    with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as tar:
        kept = {item.name: item.linkname for item in tar if item.issym()}
    assert kept == {"in/fine": "../a", "in/away": "/app/a", "in/python": "/usr/bin/python3", "in/other": "/layers/x"}
    assert len(said) == 3


def test_logs_go_when_their_time_has_come(tmp_path: Path) -> None:
    for name, age in (("old", 40), ("new", 1)):
        for suffix in (".jsonl", ".ended"):
            (tmp_path / name).with_suffix(suffix).touch()
            os.utime((tmp_path / name).with_suffix(suffix), (1e9 - age * 86400,) * 2)
    (tmp_path / "running.jsonl").touch()
    assert remove_old(tmp_path, 30, 1e9) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.ended", "new.jsonl", "running.jsonl"]
