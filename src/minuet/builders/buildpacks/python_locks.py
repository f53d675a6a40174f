"""Dependencies written for Pipenv and Poetry, as the lines of a requirements file, which is what uv reads."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from minuet.builders.failure import BuildFailure
from minuet.builders.tree import Tree

_LIMIT = 16 * 2**20


def requirements(tree: Tree) -> tuple[str, str] | None:
    """The file that was found and its lines; a lock goes before the file it was made from."""
    for name, read in (("poetry.lock", _poetry), ("Pipfile.lock", _pipenv), ("Pipfile", _pipfile)):
        text = tree.read(name, _LIMIT)
        if text is None:
            continue
        try:
            document = json.loads(text) if name == "Pipfile.lock" else tomllib.loads(text)
            return name, "".join(f"{line}\n" for line in read(document))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BuildFailure("InvalidSource", f"{name} is not readable: {str(error)[:200]}") from error
    return None


def _poetry(document: Mapping[str, Any]) -> Iterator[str]:
    for package in document.get("package", ()):
        if package.get("optional") or "main" not in package.get("groups", [package.get("category", "main")]):
            continue
        source = package.get("source", {})
        if source:
            raise _elsewhere(package["name"], f"{source.get('type')} {source.get('url')}")
        markers = package.get("markers", "")
        markers = markers.get("main", "") if isinstance(markers, dict) else markers
        yield _line(package["name"], f"=={package['version']}", (), markers)


def _pipenv(document: Mapping[str, Any]) -> Iterator[str]:
    sources = document.get("_meta", {}).get("sources", ())
    usual = sources[0].get("name") if sources else None
    for name, entry in document.get("default", {}).items():
        if entry.get("index", usual) != usual:
            raise _elsewhere(name, f"index {entry['index']}")
        yield _entry(name, entry)


def _pipfile(document: Mapping[str, Any]) -> Iterator[str]:
    for name, entry in document.get("packages", {}).items():
        yield _entry(name, entry if isinstance(entry, dict) else {"version": entry})


def _entry(name: str, entry: Mapping[str, Any]) -> str:
    origin = next((kind for kind in ("git", "hg", "svn", "path", "file") if kind in entry), None)
    if origin:
        raise _elsewhere(name, f"{origin} {entry[origin]}")
    version = str(entry.get("version", "*"))
    return _line(name, "" if version == "*" else version, entry.get("extras", ()), str(entry.get("markers", "")))


def _elsewhere(name: str, origin: str) -> BuildFailure:
    """Taking it from the package index by its name would be somebody else's code under the same name."""
    return BuildFailure(
        "InvalidSource",
        f"{name} is locked to {origin[:200]}; builds take packages from the package index only, and never another one of that name",
    )


def _line(name: str, version: str, extras: Any, markers: str) -> str:
    extra = f"[{','.join(extras)}]" if extras else ""
    text = f"{name}{extra}{version}" + (f" ; {markers}" if markers else "")
    if not text.isprintable() or text.startswith("-"):
        raise ValueError(f"{text[:100]!a} is no dependency")
    return text
