"""`python -m minuet.launcher --settings <data>/launcher/settings.toml`; kept out of the command line's way."""

from __future__ import annotations

import sys
from pathlib import Path

from minuet.kernel.errors import MinuetError
from minuet.launcher.main import serve


def main(arguments: list[str]) -> int:
    """Returns 0 after a shutdown, 2 for a wrong call, 1 for what stands in the way."""
    if len(arguments) != 2 or arguments[0] != "--settings":  # noqa: PLR2004 - one option and its value
        sys.stderr.write("usage: python -m minuet.launcher --settings FILE\n")
        return 2
    try:
        serve(Path(arguments[1]))
    except MinuetError as error:
        sys.stderr.write(f"launcher: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
