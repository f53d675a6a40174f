"""What the gateway shim is told: one small TOML file, read without anything that is large in memory."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from minuet.kernel.errors import Invalid, invalid_field
from minuet.kernel.names import unknown_key


def _number(default: float, *, unit: str, low: float, high: float, reason: str) -> Any:
    return field(default=default, metadata={"unit": unit, "low": low, "high": high, "reason": reason})


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """How Envoy is run. Where it listens and what it limits is in the snapshot, which the agent writes."""

    directory: Path = field(metadata={"unit": "path", "reason": "The snapshot; relative to this file."})
    envoy: str = field(
        default="",
        metadata={"unit": "file", "reason": "Envoy's program; empty: the installed wheel's, else the PATH's."},
    )
    concurrency: int = _number(2, unit="threads", low=1, high=256, reason="Envoy's workers; two saturate two cores.")
    drain_seconds: float = _number(
        3.0, unit="s", low=0.0, high=300.0, reason="How long a stop waits for requests in flight."
    )
    start_seconds: float = _number(
        15.0, unit="s", low=1.0, high=300.0, reason="After this long without an answer, a start has failed."
    )


def load(path: Path) -> GatewaySettings:
    """Reads the file; raises `Invalid` naming what is wrong."""
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Invalid(f"{path} cannot be read: {error}", code="BadSettings") from error
    known = {one.name: one for one in fields(GatewaySettings)}
    for key, value in values.items():
        if key not in known:
            raise unknown_key(str(path), key, known)
        _check(f"{path}.{key}", value, known[key].metadata)
    if not isinstance(values.get("directory"), str):
        raise invalid_field(f"{path}.directory", "must be given, as a path")
    values["directory"] = (path.parent / values["directory"]).absolute()
    values["concurrency"] = int(values.get("concurrency", 2))
    return GatewaySettings(**values)


def _check(name: str, value: object, meaning: Any) -> None:
    if meaning["unit"] == "path":
        return
    if meaning["unit"] == "file":
        if not isinstance(value, str):
            raise invalid_field(name, "must be a path", given=value)
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid_field(name, f"must be a number of {meaning['unit']}", given=value)
    if not meaning["low"] <= value <= meaning["high"]:
        raise invalid_field(name, f"must be between {meaning['low']:g} and {meaning['high']:g}", given=value)
