"""Secrets at rest open only where they belong, with the key they were sealed with."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minuet.infra import vault
from minuet.infra.vault import Vault
from minuet.kernel.errors import Forbidden, Unavailable
from minuet.kernel.secrets import Secret

KEY = secrets.token_bytes(32)


@given(st.text(), st.text())
def test_what_is_sealed_opens_in_its_context(text: str, context: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    context = context.encode("utf-8", "replace").decode()
    assert Vault(KEY).open(Vault(KEY).seal(Secret(text), context), context).reveal() == text


def test_another_context_key_or_content_does_not_open() -> None:
    sealed = Vault(KEY).seal(Secret("value"), "org/project/NAME")
    form, key, wrapped, body = sealed.split(".")
    flipped = body[:-2] + ("AA" if body[-2:] != "AA" else "BB")
    attempts = [
        (Vault(KEY), sealed, "org/project/OTHER"),
        (Vault(secrets.token_bytes(32)), sealed, "org/project/NAME"),
        (Vault(KEY), f"{form}.{key}.{wrapped}.{flipped}", "org/project/NAME"),
        (Vault(KEY), "v2." + sealed[3:], "org/project/NAME"),
        (Vault(KEY), "nonsense", "org/project/NAME"),
    ]
    for opener, text, context in attempts:
        with pytest.raises(Forbidden) as caught:
            opener.open(text, context)
        assert caught.value.code == "BadCiphertext"


def test_equal_secrets_do_not_look_equal() -> None:
    assert Vault(KEY).seal(Secret("same"), "c") != Vault(KEY).seal(Secret("same"), "c")


def test_a_retired_key_still_opens_but_no_longer_seals() -> None:
    old = Vault(KEY).seal(Secret("value"), "c")
    rotated = Vault(secrets.token_bytes(32), (KEY,))
    assert rotated.open(old, "c").reveal() == "value"
    assert not rotated.is_current(old)
    assert rotated.is_current(rotated.seal(Secret("value"), "c"))


def test_the_key_file_is_made_once_private_and_refused_when_it_is_not(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    sealed = vault.load_or_create(path).seal(Secret("value"), "c")
    assert path.stat().st_mode & 0o777 == 0o600
    assert vault.load_or_create(path).open(sealed, "c").reveal() == "value"
    path.chmod(0o640)
    with pytest.raises(Unavailable) as caught:
        vault.load_or_create(path)
    assert caught.value.code == "KeyExposed"


def test_a_damaged_key_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    path.write_bytes(base64.b64encode(b"short"))
    path.chmod(0o600)
    with pytest.raises(Unavailable):
        vault.load_or_create(path)
