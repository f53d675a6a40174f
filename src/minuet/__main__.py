"""`python -m minuet <role> --settings FILE`, and the CLI for everything else.

The launcher starts the roles this way; each loads only what it needs, which is
why nothing of them is imported up here.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROLES = {
    "server": "minuet.server.main",
    "builder": "minuet.builders.main",
    "agent": "minuet.agent.main",
    "gateway": "minuet.gateway.shim",
    "launcher": "minuet.launcher.main",
}
"""Modules of the roles; each has `main(settings_file: Path) -> int`."""

_USAGE = 2


def main(arguments: list[str]) -> int:
    """Runs a role, or the CLI; returns the exit code."""
    if not arguments or arguments[0] not in ROLES:
        from minuet.cli.main import main as command_line

        return command_line() or 0
    role, *rest = arguments
    if len(rest) != _USAGE or rest[0] != "--settings":
        print(f"usage: python -m minuet {role} --settings FILE", file=sys.stderr)  # noqa: T201 - this is the CLI's edge
        return _USAGE
    code: int = importlib.import_module(ROLES[role]).main(Path(rest[1]))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
