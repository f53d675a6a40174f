"""The buildpacks by name, in the order in which they are asked whether a source is theirs.

A further buildpack is one file and one line here.
"""

from __future__ import annotations

from minuet.builders.buildpacks.frontend import Frontend
from minuet.builders.buildpacks.golang import Go
from minuet.builders.buildpacks.nodejs import NodeJs
from minuet.builders.buildpacks.port import Buildpack
from minuet.builders.buildpacks.python import Python
from minuet.builders.buildpacks.static import Static

BUILDPACKS: tuple[Buildpack, ...] = (
    Python(),
    Frontend("react"),
    Frontend("angular"),
    Frontend("vue"),
    NodeJs(),
    Go(),
    Static(),
)
