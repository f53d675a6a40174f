"""Golden pairs of the renderer: `golden/<name>.yaml` in, `golden/<name>.out.yaml` out.

`MINUET_WRITE_GOLDEN=1` writes the second halves anew; read the difference before
committing it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from minuet.kernel.errors import MinuetError
from minuet.kernel.health import HealthCheck, ProbeKind
from minuet.protocol.descriptor import Descriptor
from minuet.protocol.desired import SealedValue
from minuet.render import workload
from minuet.render.inputs import Built, ComponentType, Entry, EntryKind, Identity, Place, Scale
from tests.given.documents import ARTIFACT

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.stem for path in GOLDEN.glob("*.yaml") if not path.name.endswith(".out.yaml"))


def seal(entry: Entry, context: str) -> SealedValue:
    """A sealer that shows what it was asked for; the real one is a look-up of kept ciphertexts."""
    return SealedValue(version=entry.version, ciphertext=f"sealed for {context}")


def rendered(case: dict[str, Any]) -> dict[str, Any]:
    built = Built(
        component_type=ComponentType(case.get("type", "service")),
        artifact=ARTIFACT,
        command=case.get("command", "python app.py"),
        descriptor=Descriptor.model_validate(case.get("descriptor", {})),
        port=case.get("buildpackPort"),
        configured_port=case.get("configuredPort"),
        environment=tuple(sorted(case.get("buildEnvironment", {}).items())),
    )
    place = Place(
        organization=case.get("organization", "default"),
        project="shop",
        component="web",
        component_id="cmp_1",
        environment="development",
        environment_id="env_1",
        domain="localhost",
    )
    entries = [
        Entry(item["name"], EntryKind(item["kind"]), item.get("version", 1), item.get("value"), item.get("mountPath"))
        for item in case.get("configuration", [])
    ]
    check = case.get("health")
    health = None if check is None else HealthCheck(**check | {"kind": ProbeKind(check.get("kind", "http"))})
    identity = Identity("20260319-1.1.1", 7, "20260319-1", case.get("restart", ""))
    scale = Scale(case.get("replicas", 1), suspended=case.get("suspended", False))
    try:
        made = workload.render(built, place, identity, scale=scale, entries=entries, seal=seal, health=health)
    except MinuetError as error:
        return {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    document = made.workload.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert document.pop("artifact")["digest"] == ARTIFACT.digest
    return {"workload": document, "notInForce": list(made.not_in_force)}


@pytest.mark.parametrize("name", CASES)
def test_the_document_is_what_was_agreed(name: str) -> None:
    case = yaml.safe_load((GOLDEN / f"{name}.yaml").read_text())
    file = GOLDEN / f"{name}.out.yaml"
    made = rendered(case)
    if os.environ.get("MINUET_WRITE_GOLDEN"):
        file.write_text(yaml.safe_dump(made, sort_keys=True))
    assert made == yaml.safe_load(file.read_text())


def test_equal_inputs_give_equal_bytes_and_instances_outlive_what_is_not_theirs() -> None:
    one = rendered({"replicas": 1})
    assert one == rendered({"replicas": 1})
    assert one != rendered({"replicas": 2})


def test_every_golden_has_both_halves() -> None:
    assert CASES
    outputs = {path.name.removesuffix(".out.yaml") for path in GOLDEN.glob("*.out.yaml")}
    assert outputs == set(CASES)
