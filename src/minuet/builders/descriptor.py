"""`.choreo/component.yaml`: parsed, checked field by field, and normalised.

Versions 1.0 to 1.2 are read. Every mistake names its field; unknown keys are
refused with the nearest known one.
"""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Callable, Iterator
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
_MAX_BYTES, _MAX_NODES, _MAX_DEPTH = 256 * 1024, 10_000, 20
_STRANGE = re.compile(r"[\ud800-\udfff\x00]")


def read(tree: Tree) -> Descriptor:
    """Reads the descriptor of a component's directory; without one, an empty one. Raises `Invalid`."""
    text = tree.read(PATH, _MAX_BYTES + 1)
    if text is not None:
        ignored = tuple(f"{name} is not read, because {PATH} is there" for name in OLD_FORMS if tree.has(name))
        return parse(text).model_copy(update={"warnings": ignored})
    for name, convert in OLD_FORMS.items():
        text = tree.read(name, _MAX_BYTES + 1)
        if text is not None:
            warning = f"{name} is an older form; it was read, but write {PATH} instead"
            return _parsed(convert(_loaded(text, name))).model_copy(update={"warnings": (warning,)})
    return Descriptor()


def parse(text: str) -> Descriptor:
    """Parses the text of a `component.yaml`."""
    return _parsed(_loaded(text, PATH))


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value} is there twice", key.start_mark
                )
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _loaded(text: str, name: str) -> Any:
    """The document as plain values, bounded before anything walks it: aliases can make a few lines endless."""
    if len(text) > _MAX_BYTES:
        raise Invalid(f"{name} is larger than {_MAX_BYTES // 1024} KiB", code="InvalidDescriptor")
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise Invalid(f"{name} is not valid YAML: {str(error)[:300]}", code="InvalidDescriptor") from error
    left = itertools.count(_MAX_NODES, -1)
    return _plain(document, left, name)


def _plain(value: Any, left: Iterator[int], name: str, depth: int = 0) -> Any:
    if next(left) <= 0 or depth > _MAX_DEPTH:
        raise Invalid(f"{name} is too large or too deep", code="InvalidDescriptor")
    if isinstance(value, dict):
        return {_plain_key(key, name): _plain(item, left, name, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, left, name, depth + 1) for item in value]
    if isinstance(value, str) and _STRANGE.search(value):
        raise Invalid(f"{name} holds a character that is none, in {value[:40]!a}", code="InvalidDescriptor")
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, datetime.date):
        return value.isoformat()
    raise Invalid(f"{name} holds a {type(value).__name__}, which has no place in it", code="InvalidDescriptor")


def _plain_key(key: Any, name: str) -> str:
    text = str(key)
    if _STRANGE.search(text):
        raise Invalid(f"{name} holds a character that is none, in a key", code="InvalidDescriptor")
    return text


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
        values=tuple(_each(form.get("values"), f"{path}.valueFrom.configForm.values", _text)),
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
    if isinstance(given, bool) or not re.fullmatch(r"[0-9]{1,5}", str(given)) or not 0 < int(str(given)) < 65536:  # noqa: PLR2004
        raise invalid_field(path, "is required and must be a port between 1 and 65535", given=given)
    return int(str(given))


def _choice(given: Any, path: str, known: dict[str, Any]) -> Any:
    found = known.get(str(given).lower())
    if found is None:
        allowed = [kind.value for kind in known.values()]
        raise invalid_field(path, "is not one of the known ones", given=given, allowed=allowed)
    return found
