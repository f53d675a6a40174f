"""How lists, pages, deletions and waiting for them look alike for every noun."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from minuet.cli import screen
from minuet.kernel.errors import Invalid, NotFound, NotReady

Row = Callable[[dict[str, Any]], Sequence[object]]

SECONDS = click.FloatRange(min=0, max=7 * 24 * 3600)
DELETION_SECONDS = 300.0
"""How long a deletion is waited for: instances drain and stop first."""

_LOOK_SECONDS = 0.5
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


def named(found: Sequence[dict[str, Any]], key: str, name: str, noun: str, owner: str) -> dict[str, Any]:
    """The one of a list that has the name; raises `NotFound` (`EndpointNotFound` and so on) with those there are."""
    for item in found:
        if item[key] == name:
            return item
    names = ", ".join(str(item[key]) for item in found) or "none"
    raise NotFound(f"{owner} has no {noun} {name}", code=f"{noun.capitalize()}NotFound", hint=f"there are: {names}")


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


def show_page(item: dict[str, Any], output: str, name: str = "name") -> None:
    """Prints one thing as a page that people read: a line for each field, conditions below."""
    if output != "table":
        show_one(item, output, name)
        return
    screen.fields((_title(key), _plain(value)) for key, value in item.items() if key != "conditions")
    screen.conditions(item.get("conditions") or ())


def _title(key: str) -> str:
    return _CAPITAL.sub(" ", key).capitalize()


def _plain(value: Any) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(_plain(each)) for each in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={_plain(each)}" for key, each in value.items())
    return str(value) if isinstance(value, int) else value


def confirm(typed: str, what: str, *, lost: str, yes: bool) -> None:
    """Says what is lost and asks for the name to be `typed`; raises `Invalid` where nobody can answer."""
    if yes:
        return
    if not screen.is_terminal():
        raise Invalid(f"deleting {what} needs --yes, because nobody can be asked here", code="NotConfirmed")
    screen.say(f"This deletes {what} for good. Lost: {lost}.")
    if screen.ask(f"Type {typed} to go on", default="") != typed:
        raise Invalid("the name does not match; nothing was deleted", code="NotConfirmed")


def deletion_option(command: Any) -> Any:
    """`--for delete`, for what can be waited for in no other way."""
    return click.option(
        "--for", type=click.Choice(["delete"]), default="delete", expose_value=False, help="That it is gone."
    )(command)


def timeout_option(command: Any) -> Any:
    return click.option(
        "--timeout", type=SECONDS, default=DELETION_SECONDS, show_default=True, help="Seconds to wait."
    )(command)


def until_gone(find: Callable[[], dict[str, Any]], what: str, timeout: float) -> None:
    """Looks again and again until `find` raises `NotFound`.

    Raises `NotReady` when `timeout` seconds were not enough, and at once for
    something that nobody is deleting.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            found = find()
        except NotFound:
            screen.say(f"{what[0].upper()}{what[1:]} is gone.")
            return
        if found.get("state") == "Active":
            raise NotReady(f"{what} is not being deleted", code="NotDeleting", hint="delete it first")
        if time.monotonic() >= deadline:
            held = ", ".join(found.get("heldBy") or ())
            raise NotReady(
                f"{what} is not gone after {timeout:g} s{f'; it waits for {held}' if held else ''}", code="TimedOut"
            )
        time.sleep(min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
