"""The gateway's configuration on disk: what Envoy starts from when nobody else is alive.

Three files (clusters, listeners, routes), each replaced by rename, in an order
that is make-before-break; beside them, in one file with a checksum, the last set
that Envoy accepted. The agent writes; the shim reads, and puts the accepted set
back when the present one is torn or does not come up.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from minuet.gateway.compiler import Compiled, Kind, content_version, referenced_clusters
from minuet.gateway.model import PROBE_HOST
from minuet.kernel.errors import Conflict

FILES = {"clusters": "clusters.json", "listeners": "listeners.json", "routes": "routes.json"}
"""In the order of writing: clusters first and routes last, so that no route names a cluster Envoy has not seen."""

GOOD = "good.json"
_SHRINK_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Address:
    """Where the listener of a snapshot listens."""

    host: str
    port: int


class Snapshot:
    """The directory that Envoy watches."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self) -> Compiled | None:
        """The present files; None when one is missing, torn or not what its version says."""
        kinds = {kind: _read_kind(self._directory / name) for kind, name in FILES.items()}
        if any(kind is None for kind in kinds.values()):
            return None
        return Compiled(**kinds)  # type: ignore[arg-type]

    def write(self, compiled: Compiled, kinds: Iterable[str] = tuple(FILES)) -> None:
        """Replaces the files of these kinds, in the order given."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for kind in kinds:
            _replace(self._directory / FILES[kind], _response(getattr(compiled, kind)))

    def keep_as_good(self) -> None:
        """Remembers the present files as the ones that Envoy accepted."""
        parts = {kind: orjson.Fragment((self._directory / name).read_bytes()) for kind, name in FILES.items()}
        body = orjson.dumps(parts)
        _replace(self._directory / GOOD, _checksum(body) + b"\n" + body)

    def restore_good(self) -> bool:
        """Puts the last accepted files back; False when there are none or they are damaged."""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            checksum, _, body = (self._directory / GOOD).read_bytes().partition(b"\n")
            if checksum == _checksum(body):
                parts = orjson.loads(body)
                for kind, name in FILES.items():
                    _replace(self._directory / name, orjson.dumps(parts[kind]))
                return True
        return False


def address_of(compiled: Compiled) -> Address | None:
    """Where Envoy will listen with these files."""
    for listener in compiled.listeners.resources.values():
        found = listener["address"]["socket_address"]
        return Address(found["address"], found["port_value"])
    return None


def hosts_of(compiled: Compiled | None) -> frozenset[str]:
    """The hosts that are routed, without the gateway's own."""
    if compiled is None:
        return frozenset()
    configurations = compiled.routes.resources.values()
    return frozenset(host["name"] for one in configurations for host in one["virtual_hosts"]) - {PROBE_HOST}


def with_departing(before: Compiled | None, after: Compiled) -> Compiled:
    """`after`, and the clusters that routes of `before` still name: what Envoy has while the routes move."""
    if before is None:
        return after
    named = referenced_clusters(before.routes) - set(after.clusters.resources)
    departing = [before.clusters.resources[name] for name in sorted(named) if name in before.clusters.resources]
    if not departing:
        return after
    return Compiled(after.listeners, Kind.of([*after.clusters.resources.values(), *departing]), after.routes)


def guard_shrinking(before: frozenset[str], after: frozenset[str], removed: frozenset[str]) -> None:
    """Raises `Conflict` when everything, or more than a fifth of the hosts, vanishes unnamed in `removed`."""
    lost = before - after - removed
    if lost and (not after or len(lost) > max(1, int(len(before) * _SHRINK_SHARE))):
        raise Conflict(
            f"{len(lost)} of {len(before)} hosts would vanish although nobody removed them",
            code="SnapshotShrinks",
            hint="the last configuration stays in force",
        )


def _read_kind(path: Path) -> Kind | None:
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        document: dict[str, Any] = orjson.loads(path.read_bytes())
        resources = {resource["name"]: resource for resource in document["resources"]}
        if content_version(resources) == document["version_info"]:
            return Kind(resources, document["version_info"])
    return None


def _response(kind: Kind) -> bytes:
    resources = [kind.resources[name] for name in sorted(kind.resources)]
    document: dict[str, object] = {"version_info": kind.version, "resources": resources}
    if resources:
        document["type_url"] = resources[0]["@type"]
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def _replace(path: Path, content: bytes) -> None:
    """Never lets a reader see half a file, not even after the power failed."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
