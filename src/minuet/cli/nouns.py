"""How lists, documents and deletions look alike for every noun."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from minuet.cli import screen
from minuet.kernel.errors import Invalid

Row = Callable[[dict[str, Any]], Sequence[object]]


def show_list(
    items: Iterable[dict[str, Any]], output: str, titles: Sequence[str], row: Row, name: str = "name"
) -> None:
    """Prints a list in the form asked for."""
    found = list(items)
    if output == "name":
        for item in found:
            screen.data(item[name])
    elif output == "table":
        screen.table([row(item) for item in found], titles)
    else:
        screen.document({"items": found}, output)


def show_one(item: dict[str, Any], output: str, name: str = "name") -> None:
    """Prints one thing; the table form is YAML, which people read more easily."""
    if output == "name":
        screen.data(item[name])
    else:
        screen.document(item, "yaml" if output == "table" else output)


def confirm(noun: str, name: str, yes: bool) -> None:
    """Asks to type the name; raises `Invalid` where nobody can answer."""
    if yes:
        return
    if not screen.is_terminal():
        raise Invalid(f"deleting the {noun} {name} needs --yes, because nobody can be asked here", code="NotConfirmed")
    typed = click.prompt(f"This deletes the {noun} {name} for good. Type its name to go on", default="", err=True)
    if typed != name:
        raise Invalid("the name does not match; nothing was deleted", code="NotConfirmed")
