"""The start command: from the build configuration, or from a Procfile as they are really written."""

from __future__ import annotations

import re

from minuet.builders.buildpacks.port import Request
from minuet.builders.failure import BuildFailure

_NAME = re.compile(r"\s*([\w-]+)\s*:")
_MAX_COMMAND = 4000


def start_command(request: Request, guess: str | None) -> str:
    """`runCommand` wins over the Procfile's `web`, which wins over the guess; raises `StartCommandMissing`."""
    configured = request.config.get("runCommand", "").strip()
    found = configured or _from_procfile(request.tree.lines("Procfile")) or guess
    if not found:
        raise BuildFailure(
            "StartCommandMissing", "nothing says how to start it: there is no runCommand and no Procfile with `web:`"
        )
    if len(found) > _MAX_COMMAND or not found.isprintable():
        raise BuildFailure(
            "InvalidSource", f"the start command is longer than {_MAX_COMMAND} or holds a control character"
        )
    return found


def _from_procfile(lines: list[str]) -> str | None:
    named = ((match[1], line[match.end() :].strip()) for line in lines if (match := _NAME.match(line)))
    entries = {name: command for name, command in named if command}
    return entries.get("web") or next(iter(entries.values()), None)
