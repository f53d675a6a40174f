"""A certificate of our own stays until somebody removes it, because peers pin it."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509

from minuet.infra import certificates


def test_a_certificate_that_grows_old_is_told_of_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = certificates.own(tmp_path, "127.0.0.1")
    assert "certificate_grows_old" not in capsys.readouterr().out
    monkeypatch.setattr(certificates, "CERTIFICATE_DAYS", 3 * certificates.CERTIFICATE_DAYS)
    again = certificates.own(tmp_path, "127.0.0.1")
    assert again.fingerprint == made.fingerprint
    assert "certificate_grows_old" in capsys.readouterr().out


def test_a_certificate_that_was_removed_is_made_again_for_the_same_key(tmp_path: Path) -> None:
    made = certificates.own(tmp_path, "127.0.0.1")
    before = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    made.certificate.unlink()
    again = certificates.own(tmp_path, "127.0.0.1")
    after = x509.load_pem_x509_certificate(again.certificate.read_bytes())
    assert (again.fingerprint != made.fingerprint, after.public_key() == before.public_key()) == (True, True)
    assert (tmp_path / "fingerprint").read_text().strip() == again.fingerprint
    assert after.not_valid_after_utc > datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=300)
    assert made.key.stat().st_mode & 0o077 == 0
