"""The older forms of the descriptor, and what of the present one travels on."""

from __future__ import annotations

from pathlib import Path

import pytest

from minuet.builders import descriptor
from minuet.builders.tree import Tree
from minuet.kernel.errors import Invalid
from minuet.protocol.descriptor import Descriptor

PRESENT = "schemaVersion: 1.2\nendpoints: [{name: api, service: {port: 8080}, type: REST}]\n"


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)


OLD_CONFIG = """
apiVersion: core.choreo.dev/v1beta1
kind: ComponentConfig
spec:
  inbound:
    - {name: books, port: 9090, type: REST, networkVisibility: Public, context: /books, schemaFilePath: openapi.yaml}
"""
OLD_ENDPOINTS = "version: 0.1\nendpoints:\n  - {name: Old One, port: 8000, type: REST, context: /old}\n"


def test_older_forms_are_read_with_a_warning(tmp_path: Path) -> None:
    write(tmp_path, ".choreo/endpoints.yaml", OLD_ENDPOINTS)
    found = descriptor.read(Tree(tmp_path))
    assert [(item.name, item.port, item.base_path) for item in found.endpoints] == [("Old One", 8000, "/old")]
    assert "endpoints.yaml is an older form" in found.warnings[0]
    write(tmp_path, ".choreo/component-config.yaml", OLD_CONFIG)
    found = descriptor.read(Tree(tmp_path))
    assert [(item.name, item.port, item.base_path) for item in found.endpoints] == [("books", 9090, "/books")]


def test_the_present_form_wins_over_an_older_one_beside_it(tmp_path: Path) -> None:
    write(tmp_path, ".choreo/endpoints.yaml", OLD_ENDPOINTS)
    write(tmp_path, ".choreo/component.yaml", PRESENT)
    found = descriptor.read(Tree(tmp_path))
    assert [item.name for item in found.endpoints] == ["api"]
    assert "not read" in found.warnings[0]


def test_without_a_file_nothing_is_declared(tmp_path: Path) -> None:
    assert descriptor.read(Tree(tmp_path)) == Descriptor()


@pytest.mark.parametrize("place", ["/../etc/passwd", "../../etc/passwd", "api/../../x", "/"])
def test_a_schema_lies_in_the_components_own_directory(place: str) -> None:
    with pytest.raises(Invalid, match="schemaFilePath"):
        descriptor.parse(PRESENT.replace("type: REST", f"type: REST, schemaFilePath: {place}"))


def test_a_key_that_is_there_twice_is_refused() -> None:
    with pytest.raises(Invalid, match="endpoints is there twice"):
        descriptor.parse(PRESENT + "endpoints: []\n")


def test_a_mistake_in_an_older_form_is_named_too(tmp_path: Path) -> None:
    write(tmp_path, ".choreo/endpoints.yaml", OLD_ENDPOINTS.replace("8000", "80000"))
    with pytest.raises(Invalid, match=r"endpoints\[0\]\.service\.port"):
        descriptor.read(Tree(tmp_path))
