"""YAML that somebody else wrote, as plain values; and the checks of single fields, each naming the field."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import yaml

from minuet.kernel.errors import Invalid, invalid_field
from minuet.kernel.names import unknown_key

PATH = ".choreo/component.yaml"
MAX_TEXT = 256 * 1024
_MAX_ALIASES = 10
_MAX_DEPTH = 30
_MAX_INTEGER = 2**53
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """Plain values only, and few aliases: a small text with many of them can stand for gigabytes."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the library's own form
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > _MAX_ALIASES:
                raise yaml.YAMLError(f"more than {_MAX_ALIASES} aliases")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuses a key that is there twice, of which the last would silently win."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                raise yaml.YAMLError(f"the key {key.value} is there twice")
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def document(text: str) -> Any:
    """Raises `Invalid` for what is no YAML, or is larger or deeper than a descriptor may be."""
    if len(text) > MAX_TEXT:
        raise Invalid(f"{PATH} is larger than {MAX_TEXT // 1024} KiB", code="InvalidDescriptor")
    try:
        _check_depth(text)
        read = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, narrowed further
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise Invalid(f"{PATH} is not valid YAML: {str(error)[:300]}", code="InvalidDescriptor") from error
    _check_plain(read, "", 0)
    return read


def _check_depth(text: str) -> None:
    """Looks at the nesting before anything is built from it, which would need as deep a stack."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise invalid_field(PATH, f"is nested more than {_MAX_DEPTH} deep")


def _check_plain(given: Any, path: str, depth: int) -> None:  # noqa: C901 - one line for each kind of value
    """Refuses what could not travel as JSON, or could not be told in a message."""
    if depth > _MAX_DEPTH:
        raise invalid_field(path or PATH, f"is nested more than {_MAX_DEPTH} deep")
    if isinstance(given, dict):
        for key, value in given.items():
            _check_plain(key, path or PATH, depth + 1)
            _check_plain(value, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(given, list):
        for index, item in enumerate(given):
            _check_plain(item, f"{path}[{index}]", depth + 1)
    elif isinstance(given, str):
        if _UNPRINTABLE.search(given):
            raise invalid_field(path or PATH, "holds control characters")
    elif isinstance(given, int):
        if abs(given) > _MAX_INTEGER:
            raise invalid_field(path or PATH, "is too large a number")
    elif isinstance(given, float):
        if not math.isfinite(given):
            raise invalid_field(path or PATH, "must be a finite number")
    elif given is not None:
        raise invalid_field(path or PATH, "must be a plain value")


def mapping(given: Any, path: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise invalid_field(path or PATH, "must be a mapping", given=given)
    return {str(key): value for key, value in given.items()}


def each(given: Any, path: str, parse_one: Callable[[Any, str], Any]) -> list[Any]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise invalid_field(path, "must be a list", given=given)
    return [parse_one(item, f"{path}[{index}]") for index, item in enumerate(given)]


def known(given: dict[str, Any], path: str, allowed: tuple[str, ...]) -> None:
    """Refuses a key that is none of the allowed ones with the nearest of them."""
    for key in given:
        if key not in allowed:
            raise unknown_key(path, key, allowed)


def text(given: Any, path: str, *, flags: bool = False) -> str:
    """A text or number as a text; with `flags`, true and false count too."""
    if not isinstance(given, str | int | float) or (isinstance(given, bool) and not flags) or not str(given).strip():
        raise invalid_field(path, "is required and must be a text", given=given)
    return str(given)[:1000]


def choice(given: Any, path: str, allowed: dict[str, Any]) -> Any:
    found = allowed.get(str(given).lower())
    if found is None:
        names = [kind.value for kind in allowed.values()]
        raise invalid_field(path, "is not one of the known ones", given=given, allowed=names)
    return found


def file_path(given: Any, path: str) -> str:
    """A path below the component's directory, whose root a leading slash means."""
    found = text(given, path).removeprefix("./").lstrip("/")
    if not found or ".." in found.split("/"):
        raise invalid_field(path, "must be a path below the component's directory", given=given)
    return found
