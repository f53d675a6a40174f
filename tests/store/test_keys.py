"""Keys and the database they belong to: made once, found again, and never made anew in silence."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

import pytest

from minuet.infra import files
from minuet.infra.database import Database
from minuet.kernel.errors import Conflict
from minuet.server import keys
from tests.given import rows


def fresh() -> bytes:
    return base64.b64encode(secrets.token_bytes(32)) + b"\n"


async def test_keys_are_made_at_the_first_start_and_read_at_the_next(database: Database, tmp_path: Path) -> None:
    made = await keys.open_(tmp_path, database)
    assert (await keys.open_(tmp_path, database)).ids == made.ids


@pytest.mark.parametrize("name", ["master.key", "signing.key"])
async def test_keys_that_are_missing_or_of_another_are_refused(database: Database, tmp_path: Path, name: str) -> None:
    await keys.open_(tmp_path, database)
    file = tmp_path / "keys" / name
    kept = file.read_bytes()
    file.unlink()
    with pytest.raises(Conflict, match=f"{name} is missing") as caught:
        await keys.open_(tmp_path, database)
    assert (caught.value.code, file.exists()) == ("WrongKeys", False)
    files.write_secret(file, fresh())
    with pytest.raises(Conflict, match=f"{name} is the key of another control plane"):
        await keys.open_(tmp_path, database)
    files.write_secret(file, kept)
    await keys.open_(tmp_path, database)


async def test_a_database_of_before_the_names_of_keys_needs_its_files_too(database: Database, tmp_path: Path) -> None:
    await rows.world(database)
    with pytest.raises(Conflict, match=r"master\.key is missing"):
        await keys.open_(tmp_path, database)
    keys.load(tmp_path)
    await keys.open_(tmp_path, database)


async def test_a_master_key_may_be_followed_by_retired_ones(database: Database, tmp_path: Path) -> None:
    await keys.open_(tmp_path, database)
    file, newer = tmp_path / "keys" / "master.key", fresh()
    files.write_secret(file, newer + file.read_bytes())
    await keys.open_(tmp_path, database)
    files.write_secret(file, newer)
    await keys.open_(tmp_path, database)
