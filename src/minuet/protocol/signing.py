"""Ed25519 signatures: desired state, artifacts, tickets. Keys and signatures travel as base64."""

from __future__ import annotations

import base64
import json

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import TypeAdapter, ValidationError

from minuet.kernel.canonical import canonical_json, digest_of
from minuet.kernel.errors import Forbidden
from minuet.protocol.desired import Change, Revision, Signed, Unreadable

_CHANGE: TypeAdapter[Change] = TypeAdapter(Change)


class Signer:
    """Signs bytes with one private key of 32 raw bytes."""

    def __init__(self, private_key: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(private_key)

    @property
    def public_key(self) -> str:
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(raw).decode()

    def sign(self, data: bytes) -> str:
        return base64.b64encode(self._key.sign(data)).decode()


def new_signing_key() -> bytes:
    """Returns 32 fresh private bytes for a `Signer`."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def verify(public_key: str, data: bytes, signature: str) -> None:
    """Raises `Forbidden` (`BadSignature`) unless `signature` over `data` was made by that key."""
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        key.verify(base64.b64decode(signature, validate=True), data)
    except (InvalidSignature, ValueError) as error:
        raise Forbidden("the signature does not fit the content", code="BadSignature") from error


def sign_revision(signer: Signer, revision: Revision) -> Signed:
    """Fixes a revision's bytes and signs them."""
    payload = revision.wire()
    return Signed(payload=payload, signature=signer.sign(payload.encode()))


def open_revision(public_key: str, signed: Signed) -> Revision:
    """Verifies first, parses second; raises `Forbidden` or `pydantic.ValidationError`.

    A document that cannot be read is set aside in `unreadable`, so that the others go on.
    """
    verify(public_key, signed.payload.encode(), signed.signature)
    revision = _parse(signed)
    # A delta cannot name itself: the digest of its bytes does, and those hold the digest of the one before.
    return revision if revision.snapshot else revision.model_copy(update={"digest": digest_of(signed.payload.encode())})


def _parse(signed: Signed) -> Revision:
    try:
        return Revision.model_validate_json(signed.payload)
    except ValidationError as error:
        content = json.loads(signed.payload)
        if not isinstance(content, dict) or not isinstance(content.get("changes"), list):
            raise
        problems = [(item, _problem(item)) for item in content["changes"]]
        lost = tuple(_set_aside(item, problem, error) for item, problem in problems if problem)
        kept = [item for item, problem in problems if not problem]
        return Revision.model_validate(content | {"changes": kept}).model_copy(update={"unreadable": lost})


def _problem(document: object) -> str:
    try:
        _CHANGE.validate_json(json.dumps(document))
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(str(step) for step in first['loc'])}: {first['msg']}"[:300]
    return ""


def _set_aside(document: object, problem: str, whole: ValidationError) -> Unreadable:
    """Raises the error of the whole revision for something that does not even say which document it is."""
    if not isinstance(document, dict) or not isinstance(document.get("key"), str):
        raise whole
    generation = document.get("generation")
    known = generation if isinstance(generation, int) else 0
    return Unreadable(key=document["key"], generation=known, body=json.dumps(document), problem=problem)


def issue_ticket(signer: Signer, **claims: str) -> str:
    """Returns a bearer permission, for example `plane` and `digest`, signed by the control plane."""
    body = canonical_json(claims)
    return f"{base64.urlsafe_b64encode(body).decode()}.{signer.sign(body).replace('+', '-').replace('/', '_')}"


def read_ticket(public_key: str, ticket: str) -> dict[str, str]:
    """Returns the claims of a genuine ticket; raises `Forbidden` otherwise."""
    body, _, signature = ticket.partition(".")
    try:
        data = base64.urlsafe_b64decode(body)
    except ValueError as error:
        raise Forbidden("the ticket is not readable", code="BadTicket") from error
    verify(public_key, data, signature.replace("-", "+").replace("_", "/"))
    claims: dict[str, str] = json.loads(data)
    return claims
