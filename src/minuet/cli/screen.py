"""What a person sees: stdout is data, stderr is talk. Text from elsewhere is data, never control."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from minuet.kernel.errors import MinuetError

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_CELL = 60


def clean(text: object) -> str:
    """Removes what a terminal would obey."""
    return _CONTROL.sub("\ufffd", str(text).replace("\t", "    "))


def say(line: str = "") -> None:
    """Talk, to stderr."""
    click.echo(clean(line), err=True)


def data(text: str) -> None:
    """Data, to stdout."""
    click.echo(text)


def document(value: Any, form: str) -> None:
    """Data in the form asked for: json or yaml."""
    if form == "yaml":
        import yaml

        data(yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip())
    else:
        data(json.dumps(value, indent=2, ensure_ascii=False))


def table(rows: Iterable[Sequence[object]], titles: Sequence[str]) -> None:
    """Columns as wide as they must be; nothing but the titles when there are no rows."""
    lines = [[str(title).upper() for title in titles], *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        data("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """A page of names and values."""
    shown = [(name, value) for name, value in pairs if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        data(f"{name.ljust(width)}  {clean(value)}")


def conditions(items: Iterable[dict[str, Any]]) -> None:
    """Conditions with their reasons, the next step, and the last lines of what failed."""
    for item in items:
        mark = {"True": "+", "False": "-"}.get(item["status"], "?")
        data(f"  {mark} {item['type'].ljust(9)} {item['reason']}: {clean(item['message'])}")
        if item["status"] != "True" and item.get("nextStep"):
            data(f"    -> {clean(item['nextStep'])}")
        for line in item.get("logTail") or ():
            data(f"    | {clean(line)}")


def error(problem: MinuetError) -> None:
    """One red line, the fields that are wrong, and what to do next."""
    click.secho(f"error: {clean(problem.message)}", fg="red", err=True)
    for violation in problem.violations:
        allowed = f"; allowed: {', '.join(violation.allowed)}" if violation.allowed else ""
        given = f" (given: {violation.given})" if violation.given else ""
        if clean(violation.message) not in clean(problem.message) or allowed or given:
            say(f"  {violation.field}: {violation.message}{given}{allowed}")
    if problem.hint:
        say(f"  {problem.hint}")


def ago(moment: str | None) -> str:
    """How long ago a moment of the API was."""
    if not moment:
        return ""
    import datetime

    then = datetime.datetime.fromisoformat(moment)
    seconds = max(0, int((datetime.datetime.now(datetime.UTC) - then).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _cell(value: object) -> str:
    text = clean("" if value is None else value).replace("\n", " ")
    return text if len(text) <= _CELL else text[: _CELL - 3] + "..."
