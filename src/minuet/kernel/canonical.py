"""One byte form and one digest for each document, whoever computes it."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(document: Any) -> bytes:
    """Serialises with sorted keys and no spaces, so that equal documents are equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(data: bytes) -> str:
    """Returns `sha256:` and the hexadecimal digest, the form used for every artifact."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
