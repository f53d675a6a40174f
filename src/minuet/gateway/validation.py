"""Asks the Envoy binary itself about a configuration, without running it.

Used by the agent to learn why a configuration was refused, which Envoy tells
only its log, and by the tests on every golden configuration. Separate because it
starts a process; the compiler is pure.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minuet.gateway.bootstrap import bootstrap
from minuet.gateway.compiler import Compiled
from minuet.gateway.envoy import binary
from minuet.gateway.envoy_types import Resource

_SECONDS = 30
_REASON = re.compile(r"error initializing configuration '[^']*': (.*)", re.DOTALL)


def objection(compiled: Compiled, envoy: str = "") -> str | None:
    """What Envoy says against a configuration; None when it would take it."""
    with tempfile.TemporaryDirectory(prefix="minuet-") as directory:
        file = Path(directory) / "envoy.json"
        file.write_text(json.dumps(static(compiled)))
        arguments = [binary(envoy), "--mode", "validate", "-c", str(file), "-l", "critical"]
        try:
            done = subprocess.run(
                arguments, cwd=directory, env={}, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return "Envoy did not finish reading it"
    if done.returncode == 0:
        return None
    found = _REASON.search(done.stderr)
    return " ".join((found[1] if found else done.stderr or f"exit code {done.returncode}").split())


def static(compiled: Compiled) -> Resource:
    """The same configuration in one document, since validation follows no other files."""
    document = {key: value for key, value in bootstrap().items() if key != "dynamic_resources"}
    document["static_resources"] = {
        "listeners": [_with_routes(listener, compiled) for listener in compiled.listeners.resources.values()],
        "clusters": [_untyped(cluster) for cluster in compiled.clusters.resources.values()],
    }
    return document


def _with_routes(listener: Mapping[str, Any], compiled: Compiled) -> Resource:
    inline = _untyped(listener)
    for chain in inline["filter_chains"]:
        manager = chain["filters"][0]["typed_config"]
        manager["route_config"] = _untyped(compiled.routes.resources[manager.pop("rds")["route_config_name"]])
    return inline


def _untyped(resource: Mapping[str, Any]) -> Resource:
    """A copy in the form of a static resource, whose type its place tells."""
    return {key: copy.deepcopy(value) for key, value in resource.items() if key != "@type"}
