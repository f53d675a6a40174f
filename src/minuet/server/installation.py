"""One machine's installation: where its data is, which ports it uses, what each role is told.

`minuet up` loads it from `<data>/minuet.toml` (writing it at first start), and
writes one settings file per role from it at every start, so that each role can
as well be started alone. Separate from the supervisor because it only decides;
nothing here starts a process.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from minuet.kernel.errors import Invalid, invalid_field
from minuet.kernel.names import unknown_key

FILE = "minuet.toml"
PLANE = "default"
_PORT_LIMIT = 65536


@dataclass(frozen=True)
class Installation:
    """The choices of one installation; every field can be given to `minuet up` once and is remembered.

    `uid_base` is the first of the numeric uids that roles, builds and workloads
    get when the platform runs as root; `network_pool` the private network that
    instances live in (empty: a free one is chosen); `domain` what host names of
    components end in.
    """

    api_port: int = 8400
    builder_port: int = 8401
    gateway_port: int = 8480
    isolation: str = ""
    uid_base: int = 300_000
    network_pool: str = ""
    domain: str = "localhost"
    database: str = ""
    allow_local_repositories: bool = False


def load(data: Path, changes: dict[str, Any]) -> Installation:
    """Reads the remembered choices, applies the given ones, and checks the result.

    Raises `Invalid` naming the field for an unknown key or a value out of range.
    """
    known = {field.name for field in fields(Installation)}
    stored = _read(data / FILE)
    for key in stored:
        if key not in known:
            raise unknown_key(FILE, key, known)
    installation = replace(Installation(**stored), **{k: v for k, v in changes.items() if v is not None})
    _check(installation)
    return installation


def save(data: Path, installation: Installation) -> None:
    """Remembers the choices, whole or not at all."""
    text = "# Written by `minuet up`; its options change what stands here.\n" + to_toml(asdict(installation))
    write_whole(data / FILE, text)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(
            f"{path} cannot be read: {error}", code="BadSettings", hint="correct or remove the file"
        ) from error


def _check(installation: Installation) -> None:
    hints = get_type_hints(Installation)
    for name, value in asdict(installation).items():
        if not isinstance(value, hints[name]) or (hints[name] is int and isinstance(value, bool)):
            raise invalid_field(f"{FILE}.{name}", f"must be {hints[name].__name__}", given=value)
    ports = {name: value for name, value in asdict(installation).items() if name.endswith("_port")}
    for name, value in ports.items():
        if not 0 < value < _PORT_LIMIT:
            raise invalid_field(f"{FILE}.{name}", "must be a port between 1 and 65535", given=value)
    if len(set(ports.values())) != len(ports):
        raise invalid_field(f"{FILE}.api_port", "the three ports must differ", given=sorted(ports.values()))


def to_toml(values: dict[str, Any]) -> str:
    """Writes flat values (text, numbers, truth, lists of text) as TOML lines."""
    return "".join(f"{key} = {_literal(value)}\n" for key, value in values.items())


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def write_whole(path: Path, text: str, mode: int = 0o600, owner: int | None = None) -> None:
    """Replaces a small file atomically, readable by its owner only unless `mode` says otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.chmod(mode)
    if owner is not None:
        os.chown(temporary, owner, owner)
    temporary.replace(path)
