"""`.choreo/component.yaml` as it is written in the wild, and as it must not be."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from minuet.builders import descriptor
from minuet.builders.tree import Tree
from minuet.kernel.errors import Invalid
from minuet.protocol.descriptor import Descriptor

FULL = """
schemaVersion: 1.2
endpoints:
  - name: Books API_v1
    displayName: Books
    service: {basePath: /books//api/, port: 9090}
    type: rest
    networkVisibilities: [Public, organization]
    schemaFilePath: ./api/openapi.yaml
  - {name: events, service: {port: "8081"}, type: gRPC, networkVisibility: Project}
dependencies:
  connectionReferences:
    - {name: hr, resourceRef: service:/HR/Users/v1/ad088/PUBLIC}
configurations:
  env:
    - {name: HR_URL, valueFrom: {connectionRef: {name: hr, key: ServiceURL}}}
    - {name: LEVEL, valueFrom: {configForm: {displayName: Level, type: string, values: [info, debug]}}}
    - {name: DB_USER, valueFrom: {configForm: {required: false}}}
  file:
    - name: settings.yaml
      mountPath: /etc/app
      type: yaml
      values: [{name: colours, valueFrom: {configForm: {type: array, items: {type: string}}}}]
"""
ENDPOINT: dict[str, Any] = {"name": "api", "service": {"port": 8080}, "type": "REST"}


def one(**changes: Any) -> str:
    return yaml.safe_dump({"schemaVersion": "1.2", "endpoints": [ENDPOINT | changes]})


def test_everything_that_is_allowed_is_normalised() -> None:
    found = descriptor.parse(FULL)
    books, events = found.endpoints
    assert (books.name, books.base_path, books.port, books.type) == ("Books API_v1", "/books/api", 9090, "REST")
    assert books.visibilities == ("Public", "Organization")
    assert books.schema_file_path == "api/openapi.yaml"
    assert (events.display_name, events.type, events.visibilities, events.base_path) == (
        "events",
        "GRPC",
        ("Project",),
        "/",
    )
    assert [(item.name, item.required, item.values) for item in found.environment] == [
        ("HR_URL", False, ()), ("LEVEL", True, ("info", "debug")), ("DB_USER", False, ()),
    ]  # fmt: skip
    assert found.files[0]["mountPath"] == "/etc/app"
    assert Descriptor.model_validate_json(found.wire()) == found


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", 1.0, 1.2])
def test_three_versions_are_read(version: object) -> None:
    assert descriptor.parse(yaml.safe_dump({"schemaVersion": version})).schema_version == str(version)


@pytest.mark.parametrize(
    ("text", "field", "hint"),
    [
        ("endpoints: []", "schemaVersion", "1.2"),
        ("schemaVersion: 1.3", "schemaVersion", "1.2"),
        ("schemaVersion: 1.2\nconfiguration: {}", "configuration", "configurations"),
        ("schemaVersion: 1.2\nendpoint: []", "endpoint", "endpoints"),
        ("schemaVersion: 1.2\nendpoints: {}", "endpoints", "list"),
        ("[]", "component.yaml", "mapping"),
        (one(port=8080), "endpoints[0].port", "known"),
        (one(service={"port": 70000}), "endpoints[0].service.port", "65535"),
        (one(service={"port": "\u00b2"}), "endpoints[0].service.port", "65535"),
        (one(service={"port": True}), "endpoints[0].service.port", "65535"),
        (one(service={"port": 80, "basePath": "api"}), "endpoints[0].service.basePath", "/"),
        (one(service={"port": 80, "basePath": "/a/../b"}), "endpoints[0].service.basePath", "/"),
        (one(type="HTTP"), "endpoints[0].type", "REST"),
        (one(networkVisibilities=["World"]), "endpoints[0].networkVisibilities[0]", "Public"),
        (one(schemaFilePath="../../etc/passwd"), "endpoints[0].schemaFilePath", "below"),
        (one(schemaFilePath="/etc/passwd"), "endpoints[0].schemaFilePath", "below"),
        (one(name=""), "endpoints[0].name", "required"),
        (yaml.safe_dump({"schemaVersion": "1.2", "endpoints": [ENDPOINT, ENDPOINT]} ), "endpoints[1].name", "twice"),
        ("schemaVersion: 1.2\nconfigurations: {env: [{name: 1X, valueFrom: {configForm: {}}}]}", "env[0].name", "letters"),
        ("schemaVersion: 1.2\nconfigurations: {env: [{name: X, valueFrom: {}}]}", "env[0].valueFrom", "exactly one"),
        ("schemaVersion: 1.2\nschemaVersion: 1.1", "", "twice"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place_and_what_would_be_right(text: str, field: str, hint: str) -> None:
    with pytest.raises(Invalid) as refused:
        descriptor.parse(text)
    error = refused.value
    allowed = [name for violation in error.violations for name in violation.allowed]
    assert field in error.message
    assert hint in f"{error.message} {error.hint} {' '.join(allowed)}"


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"{n}: &{n} [{', '.join(['*' + p] * 9)}]\n"
                                                       for p, n in zip("abcdefgh", "bcdefghi", strict=True)),
        "schemaVersion: 1.2\ndependencies: &d {again: *d}",
        "schemaVersion: 1.2\ndependencies: " + "[" * 5000,
        "schemaVersion: 1.2\n# " + "x" * 300_000,
        'schemaVersion: 1.2\ndependencies: {name: "\\ud800"}',
        "schemaVersion: 1.2\ndependencies: {name: !!binary aGVsbG8=}",
        "schemaVersion: 1.2\ndependencies: {name: !!python/object/apply:os.system [id]}",
        "schemaVersion: 1.2\nendpoints: [{name: x, service: {port: " + "9" * 5000 + "}, type: REST}]",
        "schemaVersion: 1.2\n? [a, b]\n: c",
    ],
    ids=["bomb", "endless", "deep", "large", "surrogate", "binary", "object", "number", "key"],
)  # fmt: skip
def test_what_is_meant_to_hurt_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        descriptor.parse(text)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates()
KEYS = st.sampled_from(
    ["schemaVersion", "endpoints", "name", "service", "port", "basePath", "type", "networkVisibilities", "dependencies",
     "configurations", "env", "file", "valueFrom", "configForm", "values", "proxy", "mountPath", "1.2"]
) | st.text(max_size=5)  # fmt: skip
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))


@given(VALUES)
def test_any_document_is_read_or_refused_and_what_is_read_can_travel(document: Any) -> None:
    given = {"schemaVersion": "1.2"} | document if isinstance(document, dict) else document
    try:
        found = descriptor.parse(yaml.safe_dump(given, allow_unicode=True))
    except Invalid:
        return
    assert Descriptor.model_validate_json(found.wire()).endpoints == found.endpoints


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(Invalid):
        assert descriptor.parse(text).schema_version


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
    write(tmp_path, ".choreo/component.yaml", one())
    found = descriptor.read(Tree(tmp_path))
    assert [item.name for item in found.endpoints] == ["api"]
    assert "not read" in found.warnings[0]


def test_without_a_file_nothing_is_declared(tmp_path: Path) -> None:
    assert descriptor.read(Tree(tmp_path)) == Descriptor()
