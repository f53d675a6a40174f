"""Gateways for the tests, and Envoy's own opinion of a configuration."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from minuet.gateway.bootstrap import bootstrap
from minuet.gateway.compiler import Compiled
from minuet.gateway.envoy import binary
from tests.given.gateway import Gateway, table
from tests.given.upstream import Upstream


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway of its own, for a test that breaks it."""
    made = Gateway(tmp_path)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Upstream]]:
    """One gateway in front of one application, for all tests of a file that only ask."""
    gateway = Gateway(tmp_path_factory.mktemp("edge"))
    with Upstream() as upstream:
        gateway.apply(table(upstream.port))
        yield gateway, upstream
    gateway.stop()


@pytest.fixture
def envoy_accepts(tmp_path: Path) -> Callable[[Compiled], str]:
    """Lets the real Envoy validate; returns what it says against the configuration, or nothing."""

    def validate(compiled: Compiled) -> str:
        document = bootstrap()
        del document["dynamic_resources"]
        document["static_resources"] = {
            "listeners": [_with_routes(one, compiled) for one in compiled.listeners.resources.values()],
            "clusters": [_untyped(one) for one in compiled.clusters.resources.values()],
        }
        file = tmp_path / "validate.json"
        file.write_text(json.dumps(document))
        arguments = [binary(), "--mode", "validate", "-c", str(file), "-l", "error"]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
        return "" if done.returncode == 0 else done.stderr[-2000:] + done.stdout[-2000:]

    return validate


def _with_routes(listener: dict[str, Any], compiled: Compiled) -> dict[str, Any]:
    """Validation reads no other files, so the routes go into the listener."""
    inline = _untyped(listener)
    manager = inline["filter_chains"][0]["filters"][0]["typed_config"]
    manager["route_config"] = _untyped(compiled.routes.resources[manager.pop("rds")["route_config_name"]])
    return inline


def _untyped(resource: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in the form of a static resource, whose type its place tells."""
    return {key: copy.deepcopy(value) for key, value in resource.items() if key != "@type"}
