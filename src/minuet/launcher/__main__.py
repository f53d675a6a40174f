"""`python -m minuet.launcher --settings <data>/launcher/settings.toml`; kept out of the command line's way."""

from __future__ import annotations

import sys
from pathlib import Path

from minuet.launcher.main import main

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "--settings":  # noqa: PLR2004 - one option and its value
        sys.stderr.write("usage: python -m minuet.launcher --settings FILE\n")
        sys.exit(2)
    sys.exit(main(Path(sys.argv[2])))
