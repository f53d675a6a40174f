"""The classes of isolation, strongest first, and what each of them gives.

`probe.py` finds out which one works; whoever starts something asks here what
it may count on. Separate so that no caller compares names of classes.
"""

from __future__ import annotations

SANDBOX = "sandbox"
"""Bubblewrap, a uid and a network for each tenant, limits."""

HOST_NETWORK = "host-network"
"""Bubblewrap, but the machine's network; without root also the launcher's uid for everything, and no limits."""

LANDLOCK = "landlock"
"""No namespaces: rules on paths and a filter of calls."""

NONE = "none"
"""Nothing at all, for trusted code."""

CLASSES = (SANDBOX, HOST_NETWORK, LANDLOCK, NONE)


def has_own_files(isolation: str) -> bool:
    """Whether a program sees a tree of its own: mounts at their targets, files put in, a private /tmp."""
    return isolation in (SANDBOX, HOST_NETWORK)


def has_own_network(isolation: str) -> bool:
    """Whether an application has an address of its own, and all ports of it."""
    return isolation == SANDBOX
