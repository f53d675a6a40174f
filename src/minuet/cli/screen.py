"""What a person sees: stdout is data, stderr is talk. Text from elsewhere is data, never control.

On a terminal, lists are laid out by rich (`tables.py`, loaded only there) and
words that tell a state have a colour; anywhere else both are plain.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from minuet.kernel.errors import MinuetError

_UNSAFE = "\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f\\u061c\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb\\ud800-\\udfff\\U000e0000-\\U000e007f"
"""Controls of terminals, marks of direction, and what cannot be seen or encoded."""

_CONTROL = re.compile(f"[{_UNSAFE}]")
_CELL = 60

COLOURS = {
    "green": ("Ready", "Succeeded", "Active", "True", "up", "ready"),
    "red": ("Failed", "False", "Unhealthy", "CrashLoop"),
    "yellow": ("Unknown", "Suspended", "Deleting", "Cancelled", "down"),
    "cyan": ("Queued", "Building", "Progressing", "Pending", "Starting", "Waiting"),
}
"""The colour of each word that tells a state."""


def clean(text: object) -> str:
    """One line without anything that a terminal would obey or a reader could not see."""
    return _CONTROL.sub("\ufffd", str(text).replace("\r\n", " ").replace("\n", " "))


def say(line: str = "") -> None:
    """Talk, to stderr: one line."""
    click.echo(clean(line), err=True)


def data(line: object) -> None:
    """One line of data, to stdout."""
    click.echo(clean(line))


def block(text: str) -> None:
    """Lines of data that hold nothing unsafe, because whoever calls has seen to it."""
    click.echo(text)


def document(value: Any, form: str) -> None:
    """Data in the form asked for: json or yaml. Controls are written as escapes, which are the same data."""
    if form == "yaml":
        block(_yaml(value))
    else:
        block(_escaped(json.dumps(value, indent=2, ensure_ascii=False)))


def documents(values: Iterable[Any]) -> None:
    """Several documents as one YAML stream."""
    block("\n---\n".join(_yaml(value) for value in values))


def _yaml(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
    if _CONTROL.search(text.replace("\n", "")):
        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=False, width=120)
    return text.rstrip()


def _escaped(text: str) -> str:
    """JSON without raw controls; its own line ends stay, those in texts are escapes already."""
    return _CONTROL.sub(lambda found: "\n" if found[0] == "\n" else json.dumps(found[0])[1:-1], text)


def table(rows: Iterable[Sequence[object]], titles: Sequence[str]) -> None:
    """Columns as wide as they must be; nothing but the titles when there are no rows."""
    if sys.stdout.isatty() and not is_dumb():
        from minuet.cli import tables

        tables.show([[clean("" if value is None else value) for value in row] for row in rows], titles)
        return
    lines = [[str(title).upper() for title in titles], *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        data("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """A page of names and values."""
    shown = [(name, value) for name, value in pairs if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        data(f"{name.ljust(width)}  {value}")


def conditions(items: Iterable[dict[str, Any]], *, began: str | None = None) -> None:
    """Conditions with their reasons, the time since `began`, the next step, and the last lines of what failed."""
    for item in items:
        elapsed = between(began, item.get("since")) if item["status"] != "Unknown" else ""
        mark = {"True": "+", "False": "-"}.get(item["status"], "?")
        head = click.style(mark, fg=colour_of(item["status"])) if has_colours(sys.stdout) else mark
        line = clean(f"{item['type'].ljust(9)} {elapsed.rjust(8)} {item['reason']}: {item['message']}")
        block(f"  {head} {line}")
        if item["status"] != "True" and item.get("nextStep"):
            data(f"    -> {item['nextStep']}")
        for line in item.get("logTail") or ():
            data(f"    | {line}")


def error(problem: MinuetError) -> None:
    """One red line, the fields that are wrong, and what to do next."""
    first, *rest = problem.message.splitlines() or [""]
    told = f"error: {clean(first)}"
    click.echo(click.style(told, fg="red") if has_colours() else told, err=True)
    for line in rest:
        say(f"  {line}")
    for violation in problem.violations:
        parts = [] if violation.message in problem.message else [f"{violation.field}: {violation.message}"]
        parts += [] if violation.given is None else [f"given: {violation.given}"]
        parts += [f"allowed: {', '.join(violation.allowed)}"] if violation.allowed else []
        if parts:
            say(f"  {'; '.join(parts)}")
    if problem.hint:
        say(f"  {problem.hint}")


def ask(question: str, *, default: str | None = None, hidden: bool = False, choices: Sequence[str] = ()) -> str:
    """Asks a person at the terminal; question, default and choices may come from a server."""
    known = {clean(choice): choice for choice in choices}
    typed: str = click.prompt(
        clean(question),
        type=click.Choice(list(known)) if known else None,
        default=None if default is None else clean(default),
        hide_input=hidden,
        err=True,
    )
    return known.get(typed, typed)


def has_colours(stream: Any = None) -> bool:
    """Whether a stream (stderr if not given) may have colours: a terminal, unless NO_COLOR forbids (no-color.org)."""
    shown = sys.stderr if stream is None else stream
    return bool(shown.isatty()) and not os.environ.get("NO_COLOR") and not is_dumb()


def is_dumb() -> bool:
    """Whether the terminal can do nothing but print lines."""
    return os.environ.get("TERM") == "dumb"


def colour_of(word: str) -> str | None:
    """The colour of a word that tells a state; None for any other word."""
    return next((colour for colour, words in COLOURS.items() if word in words), None)


def ago(moment: str | None) -> str:
    """How long ago a moment of the API was."""
    if not moment:
        return ""
    import datetime

    try:
        then = datetime.datetime.fromisoformat(moment)
        passed = datetime.datetime.now(datetime.UTC) - then
    except (ValueError, TypeError):
        return clean(moment)
    seconds = max(0, int(passed.total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def between(began: str | None, ended: str | None) -> str:
    """The seconds between two moments of the API, if both are known."""
    if not began or not ended:
        return ""
    import datetime

    try:
        passed = datetime.datetime.fromisoformat(ended) - datetime.datetime.fromisoformat(began)
    except (ValueError, TypeError):
        return ""
    return f"{max(0.0, passed.total_seconds()):.1f} s"


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _cell(value: object) -> str:
    text = clean("" if value is None else value).replace("\t", " ")
    return text if len(text) <= _CELL else text[: _CELL - 3] + "..."
