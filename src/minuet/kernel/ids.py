"""Identifiers that sort by the time they were made and name their kind.

An id is a prefix and 26 characters of Crockford base 32 (48 bits of
milliseconds, 80 bits of randomness), for example `cmp_01jd8g...`. Ids are for
machines and never change; people use names (see `names.py`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"

IdMaker = Callable[[str], str]
"""The port through which services take ids, so that a simulation can fix them."""


def new_id(prefix: str) -> str:
    """Returns a fresh id such as `bld_01jd8gq5...`."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return f"{prefix}_{_encode(value)}"


def _encode(value: int) -> str:
    digits = []
    for _ in range(26):
        value, digit = divmod(value, 32)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
