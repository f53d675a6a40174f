"""What a descriptor says of configuration, of the services it needs, and of the API it stands for."""

from __future__ import annotations

import re
from typing import Any

from minuet.builders.descriptor_fields import each, file_path, known, mapping, text
from minuet.kernel.errors import invalid_field
from minuet.protocol.descriptor import ConfigField, ConnectionVariable

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FORM_TYPES = ("string", "number", "boolean", "secret")
_FILE_FORM_TYPES = (*_FORM_TYPES, "object", "array")
_FILE_TYPES = ("yaml", "json", "toml")
_REFERENCE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s]+")
_FORM = ("displayName", "type", "required", "values", "properties", "items")
_MAX_FORM_DEPTH = 8


def variables(given: Any, path: str) -> tuple[tuple[ConfigField, ...], tuple[ConnectionVariable, ...]]:
    """The variables that are asked for by a form, and those that connections will fill."""
    found = each(given, path, _variable)
    forms = tuple(item for item in found if isinstance(item, ConfigField))
    return forms, tuple(item for item in found if isinstance(item, ConnectionVariable))


def _variable(given: Any, path: str) -> ConfigField | ConnectionVariable:
    fields = mapping(given, path)
    known(fields, path, ("name", "valueFrom"))
    name = text(fields.get("name"), f"{path}.name")
    if not _VARIABLE.fullmatch(name):
        raise invalid_field(f"{path}.name", "must be a name of letters, digits and _", given=name)
    source = mapping(fields.get("valueFrom"), f"{path}.valueFrom")
    known(source, f"{path}.valueFrom", ("connectionRef", "configForm"))
    if len(source) != 1:
        raise invalid_field(f"{path}.valueFrom", "must hold exactly one of connectionRef and configForm")
    if "connectionRef" in source:
        return _connection(name, source["connectionRef"], f"{path}.valueFrom.connectionRef")
    form = _form(source["configForm"] or {}, f"{path}.valueFrom.configForm", _FORM_TYPES)
    return ConfigField(
        name=name,
        display_name=str(form.get("displayName", name)),
        type=str(form.get("type", "string")),
        required=bool(form.get("required", True)),
        values=tuple(str(value) for value in form.get("values") or ()),
    )


def _connection(name: str, given: Any, path: str) -> ConnectionVariable:
    fields = mapping(given, path)
    known(fields, path, ("name", "key"))
    return ConnectionVariable(
        name=name, connection=text(fields.get("name"), f"{path}.name"), key=text(fields.get("key"), f"{path}.key")
    )


def _form(given: Any, path: str, types: tuple[str, ...], depth: int = 0) -> dict[str, Any]:
    """One field of a form; an object has properties, a list has items."""
    if depth > _MAX_FORM_DEPTH:
        raise invalid_field(path, f"is nested more than {_MAX_FORM_DEPTH} deep")
    form = mapping(given, path)
    known(form, path, _FORM if depth == 0 else (*_FORM, "name"))
    kind = str(form.get("type", "string"))
    if kind not in types:
        raise invalid_field(f"{path}.type", "is not known", given=kind, allowed=types)
    if not isinstance(form.get("required", True), bool):
        raise invalid_field(f"{path}.required", "must be true or false", given=form["required"])
    each(form.get("values"), f"{path}.values", lambda value, place: text(value, place, flags=True))
    if kind == "object":
        properties = each(form.get("properties"), f"{path}.properties",
                          lambda item, place: _property(item, place, types, depth + 1))  # fmt: skip
        if not properties:
            raise invalid_field(f"{path}.properties", "is required for an object")
    if kind == "array":
        _form(form.get("items"), f"{path}.items", types, depth + 1)
    return form


def _property(given: Any, path: str, types: tuple[str, ...], depth: int) -> dict[str, Any]:
    form = _form(given, path, types, depth)
    text(form.get("name"), f"{path}.name")
    return form


def file(given: Any, path: str) -> dict[str, Any]:
    """A file whose content is asked for by forms."""
    fields = mapping(given, path)
    known(fields, path, ("name", "mountPath", "type", "values"))
    name = text(fields.get("name"), f"{path}.name")
    if "/" in name or name in (".", ".."):
        raise invalid_field(f"{path}.name", "must be the name of a file, its folder is the mountPath", given=name)
    folder = text(fields.get("mountPath"), f"{path}.mountPath")
    if not folder.startswith("/") or ".." in folder.split("/"):
        raise invalid_field(f"{path}.mountPath", "must be a path from the root, without ..", given=folder)
    kind = text(fields.get("type"), f"{path}.type")
    if kind not in _FILE_TYPES:
        raise invalid_field(f"{path}.type", "is not known", given=kind, allowed=_FILE_TYPES)
    if not each(fields.get("values"), f"{path}.values", _file_value):
        raise invalid_field(f"{path}.values", "must be a list with at least one value")
    return fields


def _file_value(given: Any, path: str) -> None:
    fields = mapping(given, path)
    known(fields, path, ("name", "valueFrom"))
    text(fields.get("name"), f"{path}.name")
    source = mapping(fields.get("valueFrom"), f"{path}.valueFrom")
    known(source, f"{path}.valueFrom", ("configForm",))
    _form(source.get("configForm") or {}, f"{path}.valueFrom.configForm", _FILE_FORM_TYPES)


def dependencies(given: Any, path: str) -> dict[str, Any]:
    """The services and databases that are needed, in the words of either version of the schema."""
    fields = mapping(given or {}, path)
    known(fields, path, ("connectionReferences", "serviceReferences"))
    each(fields.get("connectionReferences"), f"{path}.connectionReferences", _connection_reference)
    each(fields.get("serviceReferences"), f"{path}.serviceReferences", _service_reference)
    return fields


def _connection_reference(given: Any, path: str) -> None:
    fields = mapping(given, path)
    known(fields, path, ("name", "resourceRef"))
    text(fields.get("name"), f"{path}.name")
    _reference(fields.get("resourceRef"), f"{path}.resourceRef")


def _service_reference(given: Any, path: str) -> None:
    fields = mapping(given, path)
    known(fields, path, ("name", "connectionConfig", "env"))
    _reference(fields.get("name"), f"{path}.name")
    text(fields.get("connectionConfig"), f"{path}.connectionConfig")
    each(fields.get("env"), f"{path}.env", _renamed)


def _renamed(given: Any, path: str) -> None:
    fields = mapping(given, path)
    known(fields, path, ("from", "to"))
    text(fields.get("from"), f"{path}.from")
    name = text(fields.get("to"), f"{path}.to")
    if not _VARIABLE.fullmatch(name):
        raise invalid_field(f"{path}.to", "must be a name of letters, digits and _", given=name)


def _reference(given: Any, path: str) -> None:
    found = text(given, path)
    if not _REFERENCE.fullmatch(found):
        raise invalid_field(path, "must be a reference such as service:/project/component/v1/endpoint/PUBLIC",
                            given=found)  # fmt: skip


def proxy(given: Any, path: str) -> dict[str, Any] | None:
    """The API that the component stands for: its type and its description."""
    if given is None:
        return None
    fields = mapping(given, path)
    known(fields, path, ("type", "schemaFilePath"))
    kind = text(fields.get("type"), f"{path}.type")
    if kind.upper() != "REST":
        raise invalid_field(f"{path}.type", "is not known", given=kind, allowed=("REST",))
    file_path(fields.get("schemaFilePath"), f"{path}.schemaFilePath")
    return fields
