"""Files of manifests: read, parsed as plain YAML, and checked before anything is asked of a server.

Separate from `manifest.py`, which says what a document means. A file may come
from anybody, so that its size, its aliases and what an error repeats of it are
bounded.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from minuet.cli import manifest
from minuet.kernel.errors import Invalid, Violation
from minuet.kernel.names import nearest

MAX_BYTES = 4 * 1024 * 1024
"""Longest file that is read, in characters."""

MAX_REPEATED = 1000
"""Nodes that aliases of a document may repeat: a few lines of aliases to aliases would stand for gigabytes."""

_MAX_TOLD = 20
"""Violations of a document that are told; the others are counted."""

_ORDER = tuple(manifest.KINDS)
_short = reprlib.Repr()
_short.maxlevel, _short.maxdict, _short.maxlist, _short.maxstring, _short.maxother = 2, 4, 4, 80, 80


def read(places: tuple[str, ...]) -> list[Any]:
    """Reads files, directories of files, or `-`; sorted so that what others need comes first."""
    found = [document for place in places for name, text in _texts(place) for document in _parse(name, text)]
    return sorted(found, key=lambda document: _ORDER.index(document.kind))


def _texts(place: str) -> Iterator[tuple[str, str]]:
    if place == "-":
        yield "standard input", _bounded("standard input", sys.stdin.read(MAX_BYTES + 1))
        return
    path = Path(place)
    if not path.exists():
        raise Invalid(f"{place} does not exist", code="FileUnreadable")
    for file in sorted((*path.glob("*.yaml"), *path.glob("*.yml"))) if path.is_dir() else [path]:
        try:
            with file.open(encoding="utf-8") as opened:
                text = opened.read(MAX_BYTES + 1)
        except (OSError, UnicodeDecodeError) as error:
            raise Invalid(f"{file} cannot be read as text: {error}", code="FileUnreadable") from error
        yield str(file), _bounded(str(file), text)


def _bounded(name: str, text: str) -> str:
    if len(text) > MAX_BYTES:
        raise Invalid(f"{name} is longer than {MAX_BYTES} characters", code="FileTooLong")
    return text


def _parse(name: str, text: str) -> Iterator[Any]:
    try:
        documents = list(yaml.load_all(text, _Loader))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Invalid(f"{name} is not valid YAML: {str(error)[:300]}", code="InvalidManifest") from error
    for number, document in enumerate(documents, 1):
        if document is not None:
            yield _check(f"{name}, document {number}", document)


def _check(where: str, document: Any) -> Any:
    kind = document.get("kind") if isinstance(document, dict) else None
    model = manifest.KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        told = _told(kind)
        close = nearest(told, _ORDER)
        hint = f"did you mean {close}?" if close else f"one of {', '.join(_ORDER)}"
        violation = Violation("kind", "is not a known kind", told, _ORDER)
        raise Invalid(
            f"{where}: the kind {told} is not known", hint=hint, violations=[violation], code="InvalidManifest"
        )
    try:
        return model.model_validate(document)
    except ValidationError as error:
        violations = [_violation(model, item) for item in error.errors()[:_MAX_TOLD]]
        first, more = violations[0], error.error_count() - len(violations)
        raise Invalid(
            f"{where}: {first.field}: {first.message}" + (f" (and {more} more)" if more else ""),
            violations=violations,
            code="InvalidManifest",
        ) from error


def _violation(model: type[BaseModel], item: Any) -> Violation:
    path = ".".join(_told(part) for part in item["loc"]) or "the document"
    if item["type"] == "extra_forbidden":
        known = _keys(model, item["loc"][:-1])
        close = nearest(_told(item["loc"][-1]), known)
        return Violation(path, f"is not known{f'; did you mean {close}?' if close else ''}", None, known)
    is_bare = item["type"] == "string_type" and isinstance(item["input"], (bool, int, float))
    message = str(item["msg"]).removeprefix("Value error, ")
    return Violation(path, f"{message}{'; write it in quotes' if is_bare else ''}", _told(item["input"]))


def _told(value: Any) -> str:
    """A value in a bounded number of characters, however much stands behind it."""
    return value[:80] if isinstance(value, str) else _short.repr(value)


def _keys(model: type[BaseModel], place: tuple[int | str, ...]) -> tuple[str, ...]:
    """The keys that may stand at a place inside a document."""
    for part in place:
        annotation = next((field.annotation for name, field in model.model_fields.items() if field.alias == part), None)
        found = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type)]
        inner = next((one for one in found if issubclass(one, BaseModel)), None)
        if inner is None:
            return ()
        model = inner
    return tuple(field.alias or name for name, field in model.model_fields.items())


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would silently keep the last, and aliases that explode."""

    def construct_document(self, node: yaml.Node) -> Any:
        known: dict[int, int] = {}
        if _expanded(node, known, set()) - len(known) > MAX_REPEATED:
            raise yaml.constructor.ConstructorError(
                None, None, f"its aliases repeat more than {MAX_REPEATED} nodes", node.start_mark
            )
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"the key {key} stands twice", node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _expanded(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """How many nodes stand at and below a node once each alias is written out; `known` collects the real ones."""
    if id(node) in above:
        raise yaml.constructor.ConstructorError(None, None, "an alias stands inside what it names", node.start_mark)
    if id(node) not in known:
        above.add(id(node))
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(_expanded(part, known, above) for part in parts)
        above.remove(id(node))
    return known[id(node)]
