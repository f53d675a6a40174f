"""What the gateway shim is told: one small TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from minuet.kernel.errors import Invalid
from minuet.kernel.names import unknown_key


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """`directory` holds the snapshot (relative to the file); `concurrency` is Envoy's count of worker threads."""

    directory: Path
    concurrency: int = 2
    drain_seconds: float = 3.0


def load(path: Path) -> GatewaySettings:
    """Reads the file; raises `Invalid` naming what is wrong. Reads it by itself, to keep the shim small."""
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Invalid(f"{path} cannot be read: {error}", code="BadSettings") from error
    known = {field.name for field in fields(GatewaySettings)}
    for key in values:
        if key not in known:
            raise unknown_key(str(path), key, known)
    if "directory" not in values:
        raise Invalid(f"{path}: directory is missing", code="BadSettings")
    values["directory"] = path.parent / values["directory"]
    return GatewaySettings(**values)
