"""`.choreo/component.yaml`: parsed, checked field by field, and normalised.

Versions 1.0 to 1.2 are read. Every mistake names its field; unknown keys are
refused with the nearest known one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import yaml

from minuet.builders.tree import Tree
from minuet.kernel.errors import Invalid, invalid_field
from minuet.kernel.names import unknown_key
from minuet.protocol.descriptor import ConfigField, Descriptor, Endpoint, EndpointType, Visibility

PATH = ".choreo/component.yaml"
_VERSIONS = ("1.0", "1.1", "1.2")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENDPOINT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}")
_BASE_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*")
_FORM_TYPES = ("string", "number", "boolean", "secret", "object", "array")
_TYPES = {kind.value.lower(): kind for kind in EndpointType}
_VISIBILITIES = {kind.value.lower(): kind for kind in Visibility}
_MAX_ENDPOINTS = 50
_MAX_TEXT = 256 * 1024
_MAX_ALIASES = 10
_MAX_DEPTH = 30
_MAX_INTEGER = 2**53
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_PORT = re.compile(r"[1-9][0-9]{0,4}")


def read(tree: Tree) -> Descriptor:
    """Reads the descriptor of a component's directory; without one, an empty one. Raises `Invalid`."""
    text = tree.read(PATH, _MAX_TEXT + 1)
    if text is not None:
        ignored = tuple(
            f"{name} is an older form and is not read beside {PATH}" for name in OLD_FORMS if tree.has(name)
        )
        return parse(text).model_copy(update={"warnings": ignored})
    for name, convert in OLD_FORMS.items():
        text = tree.read(name, _MAX_TEXT + 1)
        if text is not None:
            warning = f"{name} is an older form; it was read, but write {PATH} instead"
            return _parsed(convert(_document(text))).model_copy(update={"warnings": (warning,)})
    return Descriptor()


def parse(text: str) -> Descriptor:
    """Parses the text of a `component.yaml`."""
    return _parsed(_document(text))


def _from_component_config(document: Any) -> dict[str, Any]:
    root = _mapping(document, "")
    spec = _mapping(root.get("spec") or {}, "spec")
    outbound = _mapping(spec.get("outbound") or {}, "spec.outbound")
    made: dict[str, Any] = {"schemaVersion": "1.0", "endpoints": _each(spec.get("inbound"), "spec.inbound", _moved)}
    return made | ({"dependencies": outbound} if outbound else {})


def _from_endpoints(document: Any) -> dict[str, Any]:
    root = _mapping(document, "")
    return {"schemaVersion": "1.0", "endpoints": _each(root.get("endpoints"), "endpoints", _moved)}


def _moved(given: Any, path: str) -> dict[str, Any]:
    """An endpoint of the older forms in today's words."""
    fields = _mapping(given, path)
    _known(fields, path, ("name", "port", "type", "networkVisibility", "context", "schemaFilePath"))
    service = {"port": fields.get("port"), "basePath": fields.get("context") or "/"}
    kept = {key: fields[key] for key in ("name", "type", "networkVisibility", "schemaFilePath") if key in fields}
    return kept | {"service": service}


OLD_FORMS: dict[str, Callable[[Any], dict[str, Any]]] = {
    ".choreo/component-config.yaml": _from_component_config,
    ".choreo/endpoints.yaml": _from_endpoints,
}
"""Read where the present form is missing, the first one that is there."""


def _parsed(document: Any) -> Descriptor:
    root = _mapping(document, "")
    _known(root, "", ("schemaVersion", "endpoints", "dependencies", "configurations", "proxy"))
    version = str(root.get("schemaVersion", ""))
    if version not in _VERSIONS:
        raise invalid_field(
            "schemaVersion", "is required and must be a known version", given=version, allowed=_VERSIONS
        )
    configurations = _mapping(root.get("configurations") or {}, "configurations")
    _known(configurations, "configurations", ("env", "file"))
    return Descriptor(
        schema_version=version,
        endpoints=_endpoints(root.get("endpoints")),
        environment=tuple(_each(configurations.get("env"), "configurations.env", _config_field)),
        dependencies=_mapping(root.get("dependencies") or {}, "dependencies"),
        files=tuple(_each(configurations.get("file"), "configurations.file", _file)),
        proxy=None if root.get("proxy") is None else _mapping(root["proxy"], "proxy"),
    )


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


def _document(text: str) -> Any:
    if len(text) > _MAX_TEXT:
        raise Invalid(f"{PATH} is larger than {_MAX_TEXT // 1024} KiB", code="InvalidDescriptor")
    try:
        _check_depth(text)
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, narrowed further
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise Invalid(f"{PATH} is not valid YAML: {str(error)[:300]}", code="InvalidDescriptor") from error
    _check_plain(document, "", 0)
    return document


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


def _endpoints(given: Any) -> tuple[Endpoint, ...]:
    endpoints = tuple(_each(given, "endpoints", _endpoint))
    if len(endpoints) > _MAX_ENDPOINTS:
        raise invalid_field("endpoints", f"at most {_MAX_ENDPOINTS} are allowed", given=len(endpoints))
    seen: set[str] = set()
    for index, endpoint in enumerate(endpoints):
        if endpoint.name in seen:
            raise invalid_field(f"endpoints[{index}].name", "is there twice", given=endpoint.name)
        seen.add(endpoint.name)
    return endpoints


def _endpoint(given: Any, path: str) -> Endpoint:
    fields = _mapping(given, path)
    known = ("name", "displayName", "service", "type", "networkVisibilities", "networkVisibility", "schemaFilePath")
    _known(fields, path, known)
    name = _text(fields.get("name"), f"{path}.name")
    if not _ENDPOINT_NAME.fullmatch(name):
        raise invalid_field(f"{path}.name", "must be letters, digits, spaces, dots, _ or -, at most 63", given=name)
    service = _mapping(fields.get("service"), f"{path}.service")
    _known(service, f"{path}.service", ("basePath", "port"))
    visibilities = fields.get("networkVisibilities")
    if visibilities is None:
        visibilities = [fields.get("networkVisibility") or "Public"]
    return Endpoint(
        name=name,
        display_name=_text(fields.get("displayName", name), f"{path}.displayName"),
        type=_choice(fields.get("type"), f"{path}.type", _TYPES),
        base_path=_base_path(service.get("basePath", "/"), f"{path}.service.basePath"),
        port=_port(service.get("port"), f"{path}.service.port"),
        visibilities=tuple(
            _each(visibilities, f"{path}.networkVisibilities", lambda v, p: _choice(v, p, _VISIBILITIES))
        ),
        schema_file_path=None
        if fields.get("schemaFilePath") is None
        else _file_path(fields["schemaFilePath"], f"{path}.schemaFilePath"),
    )


def _file_path(given: Any, path: str) -> str:
    text = _text(given, path).removeprefix("./")
    if text.startswith("/") or ".." in text.split("/"):
        raise invalid_field(path, "must be a path below the component's directory", given=text)
    return text


def _base_path(given: Any, path: str) -> str:
    text = _text(given, path)
    if not _BASE_PATH.fullmatch(text) or ".." in text.split("/"):
        raise invalid_field(path, "must be a path that starts with /", given=text)
    return re.sub("/+", "/", text).rstrip("/") or "/"


def _config_field(given: Any, path: str) -> ConfigField:
    fields = _mapping(given, path)
    _known(fields, path, ("name", "valueFrom"))
    name = _text(fields.get("name"), f"{path}.name")
    if not _VARIABLE.fullmatch(name):
        raise invalid_field(f"{path}.name", "must be a name of letters, digits and _", given=name)
    source = _mapping(fields.get("valueFrom"), f"{path}.valueFrom")
    _known(source, f"{path}.valueFrom", ("connectionRef", "configForm"))
    if len(source) != 1:
        raise invalid_field(f"{path}.valueFrom", "must hold exactly one of connectionRef and configForm")
    form = _mapping(source.get("configForm") or {}, f"{path}.valueFrom.configForm")
    known = ("displayName", "type", "required", "values", "properties", "items")
    _known(form, f"{path}.valueFrom.configForm", known)
    kind = str(form.get("type", "string"))
    if kind not in _FORM_TYPES:
        raise invalid_field(f"{path}.valueFrom.configForm.type", "is not known", given=kind, allowed=_FORM_TYPES)
    return ConfigField(
        name=name,
        display_name=str(form.get("displayName", name)),
        type=kind,
        required="configForm" in source and bool(form.get("required", True)),
        values=tuple(_each(form.get("values"), f"{path}.valueFrom.configForm.values", lambda value, _: str(value))),
    )


def _file(given: Any, path: str) -> dict[str, Any]:
    fields = _mapping(given, path)
    _known(fields, path, ("name", "mountPath", "type", "values"))
    for name in ("name", "mountPath", "type"):
        _text(fields.get(name), f"{path}.{name}")
    if not isinstance(fields.get("values"), list) or not fields["values"]:
        raise invalid_field(f"{path}.values", "must be a list with at least one value")
    return fields


def _mapping(given: Any, path: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise invalid_field(path or PATH, "must be a mapping", given=given)
    return {str(key): value for key, value in given.items()}


def _each(given: Any, path: str, parse_one: Callable[[Any, str], Any]) -> list[Any]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise invalid_field(path, "must be a list", given=given)
    return [parse_one(item, f"{path}[{index}]") for index, item in enumerate(given)]


def _known(given: dict[str, Any], path: str, known: tuple[str, ...]) -> None:
    for key in given:
        if key not in known:
            raise unknown_key(path, key, known)


def _text(given: Any, path: str) -> str:
    if not isinstance(given, str | int | float) or isinstance(given, bool) or not str(given).strip():
        raise invalid_field(path, "is required and must be a text", given=given)
    return str(given)[:1000]


def _port(given: Any, path: str) -> int:
    if isinstance(given, bool) or not _PORT.fullmatch(str(given)) or int(str(given)) > 65535:  # noqa: PLR2004
        raise invalid_field(path, "is required and must be a port between 1 and 65535", given=given)
    return int(str(given))


def _choice(given: Any, path: str, known: dict[str, Any]) -> Any:
    found = known.get(str(given).lower())
    if found is None:
        allowed = [kind.value for kind in known.values()]
        raise invalid_field(path, "is not one of the known ones", given=given, allowed=allowed)
    return found
