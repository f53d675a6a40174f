"""The gateway's configuration on disk: what Envoy starts from when nobody else is alive.

Three files (clusters, listeners, routes), each replaced by rename, in an order
that is make-before-break; beside them the last set that Envoy accepted. A table
that suddenly lost most of its routes is refused unless the caller names the loss.
"""

from __future__ import annotations

import os
from pathlib import Path

import orjson

from minuet.gateway.compiler import Compiled, Kind
from minuet.kernel.errors import Conflict

FILES = {"clusters": "clusters.json", "listeners": "listeners.json", "routes": "routes.json"}
GOOD = "good"
_SHRINK_SHARE = 0.2


class Snapshot:
    """The directory that Envoy watches."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        (directory / GOOD).mkdir(exist_ok=True)

    def exists(self) -> bool:
        return all((self._directory / name).exists() for name in FILES.values())

    def write(self, compiled: Compiled) -> None:
        """Clusters first and routes last, so that no route ever names a cluster Envoy has not seen."""
        for kind in ("clusters", "listeners", "routes"):
            _replace(self._directory / FILES[kind], _response(getattr(compiled, kind)))

    def keep_as_good(self) -> None:
        """Remembers the present files as the ones that Envoy accepted."""
        for name in FILES.values():
            _replace(self._directory / GOOD / name, (self._directory / name).read_bytes())

    def restore_good(self) -> bool:
        """Puts the last accepted files back; says whether there were any."""
        if not all((self._directory / GOOD / name).exists() for name in FILES.values()):
            return False
        for kind in ("clusters", "listeners", "routes"):
            _replace(self._directory / FILES[kind], (self._directory / GOOD / FILES[kind]).read_bytes())
        return True

    def hosts(self) -> frozenset[str]:
        """The hosts that the present files route; none when they cannot be read."""
        try:
            document = orjson.loads((self._directory / FILES["routes"]).read_bytes())
            found = document["resources"][0]["virtual_hosts"]
        except (OSError, orjson.JSONDecodeError, LookupError):
            return frozenset()
        return frozenset(host["name"] for host in found)


def guard_shrinking(before: frozenset[str], after: frozenset[str], removed: frozenset[str]) -> None:
    """Raises `Conflict` when more than a fifth of the hosts vanish without having been named in `removed`."""
    lost = before - after - removed
    if len(lost) > max(1, int(len(before) * _SHRINK_SHARE)):
        raise Conflict(
            f"{len(lost)} of {len(before)} hosts would vanish although nobody removed them",
            code="SnapshotShrinks",
            hint="the last configuration stays in force",
        )


def _response(kind: Kind) -> bytes:
    resources = [kind.resources[name] for name in sorted(kind.resources)]
    document: dict[str, object] = {"version_info": kind.version, "resources": resources}
    if resources:
        document["type_url"] = resources[0]["@type"]
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
