"""Addresses as they are written down and as they are dialled."""

from __future__ import annotations


def dialable(address: str) -> str:
    """Where this machine itself reaches what listens at an address; one that means every address is at loopback."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - compared, not bound
