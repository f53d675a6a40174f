"""What an organization is."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

DEFAULT = "default"
"""The organization that exists from the first start on."""


@dataclass(frozen=True, slots=True)
class Organization:
    """Owner of projects, environments and tokens; nothing of it is visible to another one."""

    id: str
    name: str
    display_name: str
    created_at: datetime.datetime
