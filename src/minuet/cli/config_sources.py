"""Where configured values come from: arguments, prompts, files, and `.env` files.

Called by `commands/config.py`; separate because reading is one thing and
telling the server another. A value is never part of an error's text.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minuet.cli import screen
from minuet.kernel.errors import Invalid, invalid_field

MAX_BYTES = 1024 * 1024
"""Longest file that is read; the server allows less, and says how much."""

_ASSIGNMENT = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)\s*=\s*(?P<value>.*)")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_SINGLE = re.compile(r"'([^']*)'\s*(?:#.*)?")
_ESCAPE = re.compile(r"\\(.)")
_UNREADABLE = re.compile(r"[^A-Za-z0-9.-]+")
_READABLE, _DIGITS = 37, 12
"""Characters of a path's end, and of its hash, in the name of an entry."""

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}

Entry = dict[str, str]


def variable(text: str) -> Entry:
    """`NAME=value`."""
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise invalid_field("variables", "must be written as NAME=value", given=name)
    return {"name": name.strip(), "kind": "variable", "value": value}


def secret(text: str, *, alone: bool) -> Entry:
    """`NAME=value`, or `NAME`: asked for on a terminal, else read from standard input, all of it if it stands `alone`."""
    name, separator, value = text.partition("=")
    if not separator:
        value = _asked(name, alone=alone)
    if not value:
        raise invalid_field(name, "the secret is empty")
    return {"name": name.strip(), "kind": "secret", "value": value}


def _asked(name: str, *, alone: bool) -> str:
    if screen.is_terminal():
        return screen.ask(name, hidden=True)
    text = sys.stdin.read(MAX_BYTES) if alone else sys.stdin.readline(MAX_BYTES)
    return text.removesuffix("\n").removesuffix("\r")


def file(text: str, kind: str) -> Entry:
    """`/path/in/app=local-file`; `entry_name` tells which entry holds it."""
    target, separator, source = text.partition("=")
    if not separator or not source:
        raise invalid_field(kind, "must be written as /path/in/app=local-file", given=text)
    return {"kind": kind, "value": read(Path(source)), "mountPath": target}


def entry_name(target: str, there: Iterable[dict[str, Any]]) -> str:
    """The name of the entry that holds the file at a path: that of the one that is there, else a new one."""
    return next((entry["name"] for entry in there if entry.get("mountPath") == target), None) or file_name(target)


def file_name(target: str) -> str:
    """The name of a new entry for the file at a path: what can be read of its end, and a hash that tells it apart.

    Two paths never share a name, and any path has a legal one, however long or
    strange it is: letters, digits, dots and hyphens, at most 50 characters.
    """
    readable = _UNREADABLE.sub("_", target.strip("/"))[-_READABLE:].lstrip(".-_") or "file"
    return f"{readable}-{hashlib.sha256(target.encode('utf-8', 'surrogatepass')).hexdigest()[:_DIGITS]}"


def read(path: Path) -> str:
    """The text of a local file; raises `Invalid` for one that cannot be read, is no text or is too long."""
    try:
        with path.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise Invalid(f"{path} is longer than {MAX_BYTES} bytes", code="FileTooLong")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise Invalid(f"{path} cannot be read as text: {why}", code="FileUnreadable") from error


def env_file(path: Path) -> list[Entry]:
    """Every assignment of a `.env` file as a variable; raises `Invalid` naming the first line that is none."""
    found = []
    for number, raw in enumerate(read(path).removeprefix("\ufeff").splitlines(), 1):
        line = raw.strip()
        if line and not line.startswith("#"):
            match = _ASSIGNMENT.fullmatch(line)
            value = _value(match["value"]) if match else None
            if match is None or value is None:
                raise Invalid(f"{path}, line {number}: this is not NAME=value", code="InvalidEnvFile")
            found.append({"name": match["name"], "kind": "variable", "value": value})
    return found


def _value(text: str) -> str | None:
    """A value as shells and their imitators read it; None for quotes that are not closed."""
    if text.startswith('"'):
        quoted = _DOUBLE.fullmatch(text)
        return _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[1]), quoted[1]) if quoted else None
    if text.startswith("'"):
        quoted = _SINGLE.fullmatch(text)
        return quoted[1] if quoted else None
    return re.split(r"\s+#", text, maxsplit=1)[0].strip()
