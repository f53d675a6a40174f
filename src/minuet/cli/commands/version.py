"""Which version this is."""

from __future__ import annotations

import platform

import click

from minuet import __version__
from minuet.cli import place, screen


@click.command()
@place.output_option
def version(output: str) -> None:
    """Show the version of this command; `minuet status` shows the server's.

    \b
    Example:
      minuet version
    """
    if output in ("json", "yaml"):
        screen.document({"version": __version__, "python": platform.python_version()}, output)
    else:
        screen.data(__version__)
