"""`python -m minuet <role> --settings FILE`, and the CLI for everything else.

Every role runs this way, whoever starts it; each loads only what it needs, which
is why nothing of them is imported up here and no parser of the command line is.
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
"""Modules of the roles; each has `main(settings_file: Path) -> int`, the launcher's takes roles to start as well."""

_USAGE = 2


def main(arguments: list[str]) -> int:
    """Runs a role, or the CLI; returns the exit code."""
    if not arguments or arguments[0] not in ROLES:
        from minuet.cli.main import main as command_line

        return command_line() or 0
    role, *rest = arguments
    given = dict(zip(rest[::2], rest[1::2], strict=False))
    starts = given.pop("--start", None) if role == "launcher" else None
    if len(rest) % 2 or set(given) != {"--settings"}:
        print(f"usage: python -m minuet {role} --settings FILE", file=sys.stderr)  # noqa: T201 - this is the CLI's edge
        return _USAGE
    more = () if starts is None else (tuple(starts.split(",")),)
    code: int = importlib.import_module(ROLES[role]).main(Path(given["--settings"]), *more)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
