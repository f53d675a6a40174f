"""Settings of every process: a TOML file read into typed groups, each field with unit, default and reason.

Unknown keys are refused with the nearest known one; relative paths count from
the file. The reference documentation is generated from the same fields.
"""

from __future__ import annotations

import tomllib
import types
import typing
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic.fields import FieldInfo

from minuet.kernel.errors import Invalid, Violation
from minuet.kernel.names import unknown_key


class Settings(BaseModel):
    """Base of a group of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


Group = TypeVar("Group", bound=Settings)


def setting(default: Any = ..., *, unit: str = "", reason: str, **limits: Any) -> Any:
    """Declares one setting: its default, its unit, and why it is what it is."""
    return Field(default, description=reason, json_schema_extra={"unit": unit}, **limits)


def _from_file(path: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base")
    return path if base is None else Path(base, path)


FilePath = Annotated[Path, AfterValidator(_from_file)]
"""A path; a relative one counts from the directory of the settings file."""


def load(group: type[Group], path: Path) -> Group:
    """Reads a settings file; raises `Invalid` naming the file and the key that is wrong."""
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise Invalid(f"{path} does not exist", code="SettingsMissing") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} is not TOML: {error}", code="SettingsUnreadable") from error
    return parse(group, document, base=path.parent, source=str(path))


def parse(group: type[Group], document: dict[str, Any], *, base: Path | None = None, source: str = "settings") -> Group:
    """Checks a document that was read already."""
    _refuse_unknown(group, document, "")
    try:
        return group.model_validate(document, context={"base": base})
    except ValidationError as error:
        violations = [
            Violation(".".join(str(part) for part in item["loc"]), item["msg"], str(item["input"])[:200])
            for item in error.errors()
        ]
        first = violations[0]
        raise Invalid(f"{source}: {first.field}: {first.message}", violations=violations) from error


def _refuse_unknown(group: type[BaseModel], document: dict[str, Any], path: str) -> None:
    for key, value in document.items():
        field = group.model_fields.get(key)
        if field is None:
            raise unknown_key(path, key, group.model_fields)
        inner = _group_of(field)
        if inner is not None and isinstance(value, dict):
            _refuse_unknown(inner, value, f"{path}.{key}" if path else key)


def _group_of(field: FieldInfo) -> type[BaseModel] | None:
    kinds = typing.get_args(field.annotation) if _is_union(field.annotation) else (field.annotation,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)
