"""Routing tables a person could have written, and what Envoy is told: one pair per feature.

`make golden` writes the right side anew; read the difference before committing it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from minuet.gateway import chain
from minuet.gateway.compiler import Compiled, compile_table
from minuet.gateway.limits import GatewayLimits
from minuet.gateway.validation import objection
from minuet.kernel.errors import MinuetError
from tests.gateway.documents import read_table

GOLDEN = Path(__file__).parent / "golden"
TABLES = sorted(path.name.removesuffix(".in.yaml") for path in GOLDEN.glob("*.in.yaml"))
REFUSED = [name for name in TABLES if name.startswith("refused-")]
SERVED = [name for name in TABLES if name not in REFUSED]


def _compiled(name: str) -> Compiled:
    document = yaml.safe_load((GOLDEN / f"{name}.in.yaml").read_text())
    return compile_table(read_table(document), "127.0.0.1", 8480)


def _compare(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("MINUET_WRITE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize("name", SERVED)
def test_a_table_compiles_to_its_golden_configuration(name: str) -> None:
    compiled = _compiled(name)
    told = {
        "clusters": list(compiled.clusters.resources.values()),
        "virtualHosts": compiled.routes.resources[chain.ROUTES]["virtual_hosts"][:-1],
    }
    _compare(f"{name}.out.json", json.dumps(told, indent=2) + "\n")


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_must_not_be_served_says_why(name: str) -> None:
    with pytest.raises(MinuetError) as caught:
        _compiled(name)
    _compare(f"{name}.error.txt", f"{caught.value.code}: {caught.value.message}\n")


def test_the_listener_is_made_once_and_holds_every_limit() -> None:
    told = chain.listener("127.0.0.1", 8480, GatewayLimits())
    _compare("listener.out.json", json.dumps(told, indent=2) + "\n")


@pytest.mark.envoy
@pytest.mark.parametrize("name", SERVED)
def test_the_real_envoy_takes_every_golden_configuration(name: str) -> None:
    assert objection(_compiled(name)) is None


@pytest.mark.envoy
def test_the_real_envoy_says_what_it_does_not_know() -> None:
    compiled = _compiled("one-host")
    next(iter(compiled.clusters.resources.values()))["no_such_field"] = 1
    assert "no_such_field" in str(objection(compiled))
