"""`.choreo/component.yaml`: parsed, checked field by field, and normalised.

Versions 1.0 to 1.2 are read. Every mistake names its field; unknown keys are
refused with the nearest known one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from minuet.builders import descriptor_configuration as configuration
from minuet.builders.descriptor_fields import MAX_TEXT, PATH, choice, document, each, file_path, known, mapping, text
from minuet.builders.tree import Tree
from minuet.kernel.errors import invalid_field
from minuet.protocol.descriptor import Descriptor, Endpoint, EndpointType, Visibility

_VERSIONS = ("1.0", "1.1", "1.2")
_ENDPOINT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}")
_BASE_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*")
_TYPES = {kind.value.lower(): kind for kind in EndpointType}
_VISIBILITIES = {kind.value.lower(): kind for kind in Visibility}
_MAX_ENDPOINTS = 50
_PORT = re.compile(r"[1-9][0-9]{0,4}")


def read(tree: Tree) -> Descriptor:
    """Reads the descriptor of a component's directory; without one, an empty one. Raises `Invalid`."""
    written = tree.read(PATH, MAX_TEXT + 1)
    if written is not None:
        ignored = tuple(
            f"{name} is an older form and is not read beside {PATH}" for name in OLD_FORMS if tree.has(name)
        )
        return parse(written).model_copy(update={"warnings": ignored})
    for name, convert in OLD_FORMS.items():
        written = tree.read(name, MAX_TEXT + 1)
        if written is not None:
            warning = f"{name} is an older form; it was read, but write {PATH} instead"
            return _parsed(convert(document(written))).model_copy(update={"warnings": (warning,)})
    return Descriptor()


def parse(written: str) -> Descriptor:
    """Parses the text of a `component.yaml`."""
    return _parsed(document(written))


def _from_component_config(given: Any) -> dict[str, Any]:
    root = mapping(given, "")
    spec = mapping(root.get("spec") or {}, "spec")
    outbound = mapping(spec.get("outbound") or {}, "spec.outbound")
    made: dict[str, Any] = {"schemaVersion": "1.0", "endpoints": each(spec.get("inbound"), "spec.inbound", _moved)}
    return made | ({"dependencies": outbound} if outbound else {})


def _from_endpoints(given: Any) -> dict[str, Any]:
    root = mapping(given, "")
    return {"schemaVersion": "1.0", "endpoints": each(root.get("endpoints"), "endpoints", _moved)}


def _moved(given: Any, path: str) -> dict[str, Any]:
    """An endpoint of the older forms in today's words."""
    fields = mapping(given, path)
    known(fields, path, ("name", "port", "type", "networkVisibility", "context", "schemaFilePath"))
    service = {"port": fields.get("port"), "basePath": fields.get("context") or "/"}
    kept = {key: fields[key] for key in ("name", "type", "networkVisibility", "schemaFilePath") if key in fields}
    return kept | {"service": service}


OLD_FORMS: dict[str, Callable[[Any], dict[str, Any]]] = {
    ".choreo/component-config.yaml": _from_component_config,
    ".choreo/endpoints.yaml": _from_endpoints,
}
"""Read where the present form is missing, the first one that is there."""


def _parsed(given: Any) -> Descriptor:
    root = mapping(given, "")
    known(root, "", ("schemaVersion", "endpoints", "dependencies", "configurations", "proxy"))
    version = str(root.get("schemaVersion", ""))
    if version not in _VERSIONS:
        raise invalid_field(
            "schemaVersion", "is required and must be a known version", given=version, allowed=_VERSIONS
        )
    configurations = mapping(root.get("configurations") or {}, "configurations")
    known(configurations, "configurations", ("env", "file"))
    forms, connections = configuration.variables(configurations.get("env"), "configurations.env")
    return Descriptor(
        schema_version=version,
        endpoints=_endpoints(root.get("endpoints")),
        environment=forms,
        connections=connections,
        dependencies=configuration.dependencies(root.get("dependencies"), "dependencies"),
        files=tuple(each(configurations.get("file"), "configurations.file", configuration.file)),
        proxy=configuration.proxy(root.get("proxy"), "proxy"),
    )


def _endpoints(given: Any) -> tuple[Endpoint, ...]:
    endpoints = tuple(each(given, "endpoints", _endpoint))
    if len(endpoints) > _MAX_ENDPOINTS:
        raise invalid_field("endpoints", f"at most {_MAX_ENDPOINTS} are allowed", given=len(endpoints))
    seen: set[str] = set()
    for index, endpoint in enumerate(endpoints):
        if endpoint.name in seen:
            raise invalid_field(f"endpoints[{index}].name", "is there twice", given=endpoint.name)
        seen.add(endpoint.name)
    return endpoints


def _endpoint(given: Any, path: str) -> Endpoint:
    fields = mapping(given, path)
    known(
        fields,
        path,
        ("name", "displayName", "service", "type", "networkVisibilities", "networkVisibility", "schemaFilePath"),
    )
    name = text(fields.get("name"), f"{path}.name")
    if not _ENDPOINT_NAME.fullmatch(name):
        raise invalid_field(f"{path}.name", "must be letters, digits, spaces, dots, _ or -, at most 63", given=name)
    service = mapping(fields.get("service"), f"{path}.service")
    known(service, f"{path}.service", ("basePath", "port"))
    visibilities = fields.get("networkVisibilities")
    if visibilities == []:
        raise invalid_field(f"{path}.networkVisibilities", "must hold at least one, or be left out")
    if visibilities is None:
        visibilities = [fields.get("networkVisibility") or "Public"]
    schema = fields.get("schemaFilePath")
    return Endpoint(
        name=name,
        display_name=text(fields.get("displayName", name), f"{path}.displayName"),
        type=choice(fields.get("type"), f"{path}.type", _TYPES),
        base_path=_base_path(service.get("basePath") or "/", f"{path}.service.basePath"),
        port=_port(service.get("port"), f"{path}.service.port"),
        visibilities=tuple(each(visibilities, f"{path}.networkVisibilities", lambda v, p: choice(v, p, _VISIBILITIES))),
        schema_file_path=file_path(schema, f"{path}.schemaFilePath") if schema not in (None, "") else None,
    )


def _base_path(given: Any, path: str) -> str:
    found = text(given, path)
    if not _BASE_PATH.fullmatch(found) or ".." in found.split("/"):
        raise invalid_field(path, "must be a path that starts with /", given=found)
    return re.sub("/+", "/", found).rstrip("/") or "/"


def _port(given: Any, path: str) -> int:
    if isinstance(given, bool) or not _PORT.fullmatch(str(given)) or int(str(given)) > 65535:  # noqa: PLR2004
        raise invalid_field(path, "is required and must be a port between 1 and 65535", given=given)
    return int(str(given))
