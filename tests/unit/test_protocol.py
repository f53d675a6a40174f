"""The documents that cross the link: forms, digests, signatures, sealed values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from minuet.kernel.canonical import digest_of
from minuet.kernel.errors import Forbidden
from minuet.kernel.secrets import Secret
from minuet.protocol import frames, sealing, signing
from minuet.protocol.desired import Revision, Signed, Workload
from tests.given.documents import workload

SIGNER = signing.Signer(signing.new_signing_key())


@pytest.mark.parametrize("key", ["", "no", "bm8ga2V5", "é", "A" * 43 + "="])
def test_what_cannot_seal_is_no_sealing_key(key: str) -> None:
    assert not sealing.is_sealing_key(key)
    assert sealing.is_sealing_key(sealing.sealing_public_key(sealing.new_sealing_key()))


def test_a_revision_survives_signing_and_opening() -> None:
    revision = Revision(plane="default", epoch=1, revision=7, previous=6, changes=(workload(),))
    signed = signing.sign_revision(SIGNER, revision)
    named = revision.model_copy(update={"digest": digest_of(signed.payload.encode())})
    assert signing.open_revision(SIGNER.public_key, signed) == named


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_revision_changed_by_one_byte_is_refused(position: int, mask: int) -> None:
    signed = signing.sign_revision(SIGNER, Revision(plane="default", epoch=1, revision=1, previous=0))
    raw = bytearray(signed.payload.encode())
    raw[position % len(raw)] ^= mask
    forged = Signed(payload=raw.decode("latin-1"), signature=signed.signature)
    with pytest.raises(Forbidden):
        signing.open_revision(SIGNER.public_key, forged)


def test_a_revision_signed_by_somebody_else_is_refused() -> None:
    stranger = signing.Signer(signing.new_signing_key())
    signed = signing.sign_revision(stranger, Revision(plane="default", epoch=1, revision=1, previous=0))
    with pytest.raises(Forbidden):
        signing.open_revision(SIGNER.public_key, signed)


def test_a_ticket_tells_its_claims_to_whoever_holds_the_key() -> None:
    ticket = signing.issue_ticket(SIGNER, plane="default", artifact="sha256:1")
    assert signing.read_ticket(SIGNER.public_key, ticket) == {"plane": "default", "artifact": "sha256:1"}


@pytest.mark.parametrize("ticket", ["", ".", "a.b", "e30=.AAAA", "ü.ü"])
def test_a_broken_ticket_is_refused(ticket: str) -> None:
    with pytest.raises(Forbidden):
        signing.read_ticket(SIGNER.public_key, ticket)


def test_a_sealed_value_opens_only_in_its_context() -> None:
    key = sealing.new_sealing_key()
    sealed = sealing.seal(sealing.sealing_public_key(key), Secret("s3cret"), "workload/NAME")
    assert sealing.unseal(key, sealed, "workload/NAME").reveal() == "s3cret"
    with pytest.raises(Forbidden):
        sealing.unseal(key, sealed, "workload/OTHER")


def test_a_sealed_value_opens_only_with_its_key() -> None:
    sealed = sealing.seal(sealing.sealing_public_key(sealing.new_sealing_key()), Secret("s3cret"), "c")
    with pytest.raises(Forbidden):
        sealing.unseal(sealing.new_sealing_key(), sealed, "c")


def test_scaling_and_routing_do_not_change_the_template() -> None:
    one = workload(replicas=1, generation=1)
    many = workload(replicas=5, generation=2, routes=())
    assert one.template == many.template


@pytest.mark.parametrize("change", [{"command": "other"}, {"restart": "again"}, {"ports": (9000,)}])
def test_whatever_an_instance_sees_changes_the_template(change: dict[str, object]) -> None:
    assert workload().template != workload(**change).template


def test_a_secret_cannot_be_printed() -> None:
    secret = Secret("s3cret")
    assert "s3cret" not in f"{secret} {secret!r} {[secret]}"


def test_a_frame_of_a_newer_peer_may_hold_unknown_fields() -> None:
    frame = frames.parse_frame('{"frame": "cancelQuery", "id": "1", "added": true}')
    assert frame == frames.CancelQuery(id="1")


@pytest.mark.parametrize("text", ["", "{}", '{"frame": "nonsense"}', "[1]", "null"])
def test_anything_else_is_not_a_frame(text: str) -> None:
    with pytest.raises(ValidationError):
        frames.parse_frame(text)


def test_documents_are_camel_case_on_the_wire() -> None:
    assert '"dataPlane"' not in workload().wire()
    assert "environmentVariables" in workload().wire()
    assert Workload.model_validate_json(workload().wire()) == workload()
