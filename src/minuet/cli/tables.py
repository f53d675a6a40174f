"""Lists on a terminal: columns fitted to its width, long cells folded, states in colour.

Called by `screen.table`, and separate because it is the only file that loads
rich: off a terminal, and for help, nobody waits for that.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from minuet.cli import screen

_STATES = ("status", "state", "phase", "environments", "link", "ready")
"""Columns that tell states; the same words elsewhere are just words."""


def show(rows: Sequence[Sequence[str]], titles: Sequence[str]) -> None:
    """Prints cells that are clean already; nothing in them is markup."""
    coloured = screen.has_colours(sys.stdout)
    console = Console(
        file=sys.stdout,
        color_system="standard" if coloured else None,
        highlight=False,
        markup=False,
        emoji=False,
        safe_box=True,
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(Text(title.upper()), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value, title) for value, title in zip(row, titles, strict=True)))
    console.print(table)


def _cell(value: str, title: str) -> Text:
    """A cell in which each word that tells a state has its colour, also in `development: Ready`."""
    cell = Text(value.replace("\t", " "))
    if title in _STATES:
        cell.highlight_regex(r"[A-Za-z]+", screen.colour_of)
    return cell
