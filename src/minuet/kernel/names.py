"""Names that people give, and the host names that follow from them."""

from __future__ import annotations

import base64
import difflib
import hashlib
import re
from collections.abc import Iterable

from minuet.kernel.errors import Invalid, invalid_field

MAX_NAME = 56
"""Longest name of an organization, project, component or environment, in characters.

Leaves room for a suffix within the 63 bytes of a DNS label (RFC 1035).
"""

MAX_BASE_PATH = 256
"""Longest base path in characters; it ends up in a regular expression of Envoy's, whose size Envoy bounds."""

MAX_DISPLAY_NAME = 120
MAX_DESCRIPTION = 1000

_NAME = re.compile(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9]))*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SEPARATOR = "--"
_LABEL_LIMIT = 63


def check_name(field: str, value: str) -> str:
    """Returns `value` if it is a legal name; raises `Invalid` naming `field` otherwise."""
    if len(value) > MAX_NAME:
        raise invalid_field(field, f"is {len(value)} characters long, at most {MAX_NAME} are allowed", given=value)
    if not _NAME.fullmatch(value):
        raise invalid_field(
            field,
            "must start with a letter and hold only lower-case letters, digits and single hyphens between them",
            given=value,
            hint=_suggestion(value),
        )
    return value


def check_text(field: str, value: str, limit: int = MAX_DISPLAY_NAME) -> str:
    """Returns free text without control characters and at most `limit` characters long."""
    if len(value) > limit:
        raise invalid_field(field, f"is {len(value)} characters long, at most {limit} are allowed")
    if _CONTROL.search(value):
        raise invalid_field(field, "holds a control character")
    return value


def _suggestion(value: str) -> str | None:
    candidate = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-").lstrip("0123456789-")[:MAX_NAME].rstrip("-")
    return f"for example {candidate}" if candidate else None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Returns the known word that `word` was probably meant to be."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def unknown_key(path: str, key: str, known: Iterable[str]) -> Invalid:
    """The error for a key nobody knows, with the nearest one that somebody does."""
    names = sorted(known)
    close = nearest(key, names)
    hint = f"did you mean {close}?" if close else f"known keys: {', '.join(names)}"
    return invalid_field(f"{path}.{key}" if path else key, "is not a known key", allowed=names, hint=hint)


def host_label(organization: str, project: str, component: str, environment: str) -> str:
    """Maps a component in an environment to its own DNS label, injectively.

    Names never hold two hyphens in a row, so joining them with `--` cannot
    collide; the organization `default` is left out, which the number of parts
    still tells. A label that would be too long, or whose third and fourth
    characters would be hyphens (reserved, RFC 5891), becomes a readable prefix
    and 128 bits of hash, which holds no `--`.
    """
    parts = [component, project, environment]
    if organization != "default":
        parts.append(organization)
    label = _SEPARATOR.join(parts)
    if len(label) <= _LABEL_LIMIT and len(component) != 2:  # noqa: PLR2004 - position of the reserved hyphens
        return label
    digest = hashlib.sha256(f"{organization}/{project}/{component}/{environment}".encode()).digest()[:16]
    suffix = base64.b32encode(digest).decode().rstrip("=").lower()
    return f"{component[: _LABEL_LIMIT - len(suffix) - 1].rstrip('-')}-{suffix}"
