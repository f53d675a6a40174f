"""The store of artifacts: durable, honest about what was tampered with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

import pytest

from minuet.builders.store import Store
from minuet.builders.tree import archive
from minuet.kernel.canonical import digest_of
from minuet.kernel.errors import Exhausted, Invalid
from minuet.protocol import signing

KEY = "k" * 64


def test_what_is_put_is_found_under_its_digest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = store.put(b"data")
    assert digest == digest_of(b"data")
    assert store.path(digest).read_bytes() == b"data"
    assert store.put_written(lambda file: [file.write(b"da"), file.write(b"ta")][0] and None, 4) == (digest, 4)


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:" + "A" * 64, "../" + "a" * 64, "sha256:" + "a" * 63 + "/"])
def test_what_is_no_digest_names_no_file(tmp_path: Path, digest: str) -> None:
    with pytest.raises(Invalid):
        Store(tmp_path).path(digest)


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def write(file: IO[bytes]) -> None:
        file.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.put_written(write, 100)
    assert list((tmp_path / "blobs").iterdir()) == []


def test_what_is_written_is_bounded_however_little_it_takes_on_a_disk(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (tmp_path / "tree").mkdir()
    for number in range(3):
        with (tmp_path / "tree" / f"sparse{number}").open("wb") as file:
            file.truncate(2**40)
    with pytest.raises(Exhausted, match="1 MiB"):
        store.put_written(archive(tmp_path / "tree"), 2**20)
    assert list((tmp_path / "store/blobs").iterdir()) == []


def test_writing_ends_when_its_time_is_over(tmp_path: Path) -> None:
    def proceed() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        Store(tmp_path).put_written(lambda file: file.write(b"x") and None, 100, proceed)  # type: ignore[func-returns-value]


def remembered(store: Store) -> Path:
    digest = store.put(b"layer")
    store.remember(KEY, {"digest": digest, "size": 5})
    assert store.cached(KEY) is not None
    return store.path(digest)


def test_a_remembered_layer_is_forgotten_when_its_blob_is_gone_or_cut(tmp_path: Path) -> None:
    store = Store(tmp_path)
    blob = remembered(store)
    blob.write_bytes(b"lay")
    assert store.cached(KEY) is None
    blob.unlink()
    assert store.cached(KEY) is None


@pytest.mark.parametrize("entry", ["", "[]", "{}", '{"digest": "x", "size": 1}', '{"digest": 5}', "null", "\x00"])
def test_a_damaged_entry_is_as_good_as_none(tmp_path: Path, entry: str) -> None:
    store = Store(tmp_path)
    remembered(store)
    (tmp_path / "cache" / f"{KEY}.json").write_text(entry)
    assert store.cached(KEY) is None


def test_the_signing_key_survives_a_restart_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    first = Store(tmp_path).signer
    second = Store(tmp_path).signer
    signing.verify(first.public_key, b"manifest", second.sign(b"manifest"))
    assert (tmp_path / "signing.key").stat().st_mode & 0o077 == 0


def test_a_changed_manifest_no_longer_verifies(tmp_path: Path) -> None:
    signer = Store(tmp_path).signer
    manifest = json.dumps({"command": "python app.py"}).encode()
    signature = signer.sign(manifest)
    with pytest.raises(Exception, match=r"(?i)signature"):
        signing.verify(signer.public_key, manifest.replace(b"app", b"bad"), signature)
