"""The descriptor: what is read, and which field a mistake is told for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minuet.builders import descriptor
from minuet.builders.tree import Tree
from minuet.kernel.errors import Invalid

ENDPOINT = {"name": "api", "service": {"port": 8080}, "type": "REST"}


def text(*endpoint: str, more: str = "") -> str:
    """A file with one endpoint; the lines given replace its own."""
    lines = {line.split(":")[0]: line for line in ("name: api", "type: REST", "service: {port: 8080}", *endpoint)}
    body = "\n    ".join(line for line in lines.values() if line.split(":", 1)[1].strip())
    return f"schemaVersion: 1.2\nendpoints:\n  - {body}\n{more}"


def test_a_whole_file_is_read_and_normalised() -> None:
    read = descriptor.parse(
        text(
            "displayName: The API",
            "type: graphql",
            "service: {basePath: /shop//v1/, port: '9090'}",
            "networkVisibility: public",
            "schemaFilePath: api/schema.graphql",
            more="""\
configurations:
  env:
    - name: LEVEL
      valueFrom: {configForm: {displayName: Level, type: string, required: false, values: [info, 3]}}
    - name: DB_HOST
      valueFrom: {connectionRef: {name: db, key: Host}}
  file:
    - {name: settings.json, mountPath: /etc/shop, type: json, values: [{name: a, valueFrom: {configForm: {type: array, items: {type: string}}}}]}
dependencies: {connectionReferences: [{name: db, resourceRef: 'database:pg'}]}
""",
        )
    )
    [endpoint] = read.endpoints
    assert (endpoint.display_name, endpoint.type, endpoint.base_path, endpoint.port) == (
        "The API", "GraphQL", "/shop/v1", 9090,
    )  # fmt: skip
    assert endpoint.visibilities == ("Public",)
    [level] = read.environment
    assert (level.values, level.required) == (("info", "3"), False)
    [host] = read.connections
    assert (host.name, host.connection, host.key) == ("DB_HOST", "db", "Host")
    assert read.files[0]["mountPath"] == "/etc/shop"
    assert "connectionReferences" in read.dependencies


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "'1.2'"])
def test_each_version_of_the_schema_is_read(version: str) -> None:
    assert descriptor.parse(f"schemaVersion: {version}\n").schema_version == version.strip("'")


def form(what: str) -> str:
    return f"schemaVersion: 1.2\nconfigurations: {{env: [{{name: A, valueFrom: {{configForm: {{{what}}}}}}}]}}"


@pytest.mark.parametrize("path", ["", "basePath: ", "basePath: '', ", "basePath: null, "])
def test_a_base_path_that_is_empty_is_the_root(path: str) -> None:
    service = f"service: {{{path.rstrip(', ') + ', ' if path.strip() else ''}port: 80}}"
    assert descriptor.parse(text(service)).endpoints[0].base_path == "/"


@pytest.mark.parametrize(("given", "read"), [("''", None), ("/api/a.yaml", "api/a.yaml"), ("./a.yaml", "a.yaml")])
def test_the_path_of_a_schema_is_read_as_people_write_it(given: str, read: str | None) -> None:
    assert descriptor.parse(text(f"schemaFilePath: {given}")).endpoints[0].schema_file_path == read


def test_services_are_referred_to_in_the_words_of_either_version() -> None:
    more = """\
dependencies:
  serviceReferences:
    - name: choreo:///apifirst/shop/orders/ad088/v1/PUBLIC
      connectionConfig: 19d2648b-d29c-4452-afdd-1b9311e81412
      env: [{from: ServiceURL, to: ORDERS_URL}]
"""
    assert "serviceReferences" in descriptor.parse(text(more=more)).dependencies


def more(root: str) -> str:
    return f"schemaVersion: 1.2\n{root}\n"


def file(fields: str) -> str:
    return more(f"configurations: {{file: [{{name: a, mountPath: /a, type: json, {fields}}}]}}")


VALUE = "values: [{name: a, valueFrom: {configForm: {}}}]"
CONNECTED = "dependencies: {connectionReferences: [{name: hr, resourceRef: 'service:/a/b/v1/c/PUBLIC'"


@pytest.mark.parametrize(
    ("written", "field"),
    [
        (more("proxy: {nonsense: 1}"), "proxy.nonsense"),
        (more("proxy: {type: SOAP, schemaFilePath: a.yaml}"), "proxy.type"),
        (more("proxy: {type: REST}"), "proxy.schemaFilePath"),
        (more("proxy: {type: REST, schemaFilePath: ../a}"), "proxy.schemaFilePath"),
        (more("dependencies: {others: []}"), "dependencies.others"),
        (more("dependencies: {connectionReferences: {}}"), "dependencies.connectionReferences"),
        (more(CONNECTED + ", key: a}]}"), "dependencies.connectionReferences[0].key"),
        (more("dependencies: {connectionReferences: [{name: a, resourceRef: some where}]}"),
         "dependencies.connectionReferences[0].resourceRef"),
        (more("dependencies: {serviceReferences: [{name: 'choreo:///a', connectionConfig: b, env: [{from: a, to: B-C}]}]}"),
         "dependencies.serviceReferences[0].env[0].to"),
        (file("values: []"), "configurations.file[0].values"),
        (file("values: [{name: a}]"), "configurations.file[0].values[0].valueFrom"),
        (file("values: [{name: a, valueFrom: {connectionRef: {}}}]"),
         "configurations.file[0].values[0].valueFrom.connectionRef"),
        (file("values: [{name: a, valueFrom: {configForm: {type: object}}}]"),
         "configurations.file[0].values[0].valueFrom.configForm.properties"),
        (file("values: [{name: a, valueFrom: {configForm: {type: array}}}]"),
         "configurations.file[0].values[0].valueFrom.configForm.items"),
        (file(VALUE).replace("/a,", "relative/../x,"), "configurations.file[0].mountPath"),
        (file(VALUE).replace("/a,", "/a/../x,"), "configurations.file[0].mountPath"),
        (file(VALUE).replace("type: json", "type: banana"), "configurations.file[0].type"),
        (file(VALUE).replace("name: a, mount", "name: a/b, mount"), "configurations.file[0].name"),
        (more("configurations: {env: [{name: A, valueFrom: {connectionRef: {name: hr}}}]}"),
         "configurations.env[0].valueFrom.connectionRef.key"),
        (form("type: object, properties: []"), "configurations.env[0].valueFrom.configForm.type"),
        (form("required: maybe"), "configurations.env[0].valueFrom.configForm.required"),
        (text("networkVisibilities: []"), "endpoints[0].networkVisibilities"),
    ],
)  # fmt: skip
def test_what_is_kept_for_later_is_checked_now(written: str, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        descriptor.parse(written)
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize(
    ("file", "field"),
    [
        ("endpoints: []", "schemaVersion"),
        ("schemaVersion: 3", "schemaVersion"),
        ("schemaVersion: 1.2\nendpoint: []", "endpoint"),
        ("schemaVersion: 1.2\nendpoints: {a: b}", "endpoints"),
        ("schemaVersion: 1.2\nendpoints: [x]", "endpoints[0]"),
        (text("name:"), "endpoints[0].name"),
        (text("name: a/b"), "endpoints[0].name"),
        (text("type: SOAP"), "endpoints[0].type"),
        (text("service: {port: 0}"), "endpoints[0].service.port"),
        (text("service: {port: 65536}"), "endpoints[0].service.port"),
        (text("service: {port: true}"), "endpoints[0].service.port"),
        (text("service: {port: \u00b2}"), "endpoints[0].service.port"),
        (text("service: {port: 80, basePath: v1}"), "endpoints[0].service.basePath"),
        (text("service: {port: 80, basePath: /a/../b}"), "endpoints[0].service.basePath"),
        (text("service: {port: 80, path: /}"), "endpoints[0].service.path"),
        (text("networkVisibilities: [Everyone]"), "endpoints[0].networkVisibilities[0]"),
        (text("networkVisibilites: [Public]"), "endpoints[0].networkVisibilites"),
        (text(more="  - {name: api, type: REST, service: {port: 1}}"), "endpoints[1].name"),
        ("schemaVersion: 1.2\nendpoints:\n" + "  - {}\n" * 1, "endpoints[0].name"),
        ("schemaVersion: 1.2\nconfigurations: {env: [{name: A-B, valueFrom: {}}]}", "configurations.env[0].name"),
        ("schemaVersion: 1.2\nconfigurations: {env: [{name: A, valueFrom: {}}]}", "configurations.env[0].valueFrom"),
        (form("type: date"), "configurations.env[0].valueFrom.configForm.type"),
        (form("values: 5"), "configurations.env[0].valueFrom.configForm.values"),
        ("schemaVersion: 1.2\nconfigurations: {file: [{name: a, mountPath: /a}]}", "configurations.file[0].type"),
        ("schemaVersion: 1.2\nconfigurations: {secrets: []}", "configurations.secrets"),
        ("schemaVersion: 1.2\nproxy: 7", "proxy"),
        ("schemaVersion: 1.2\ndependencies: {a: !!binary aGk=}", "dependencies.a"),
        ("schemaVersion: 1.2\ndependencies: {a: .nan}", "dependencies.a"),
        ("schemaVersion: 1.2\ndependencies: {a: [0x" + "f" * 5000 + "]}", "dependencies.a[0]"),
        ('schemaVersion: 1.2\nproxy: {a: "\\0"}', "proxy.a"),
        ('schemaVersion: 1.2\nproxy: {a: "\\ud800"}', "proxy.a"),
    ],
)
def test_a_mistake_names_its_field(file: str, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        descriptor.parse(file)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_an_unknown_key_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(Invalid) as caught:
        descriptor.parse(text("networkVisibilites: [Public]"))
    assert "networkVisibilities" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "file",
    [
        "a: [",
        "- &a [*a]",
        "{[1]: 2}",
        "schemaVersion: 2020-99-99",
        "\x00",
        "[" * 5000,
        "a: !!python/object:os.system {}",
        "x" * 300_000,
    ],
)
def test_what_is_no_descriptor_at_all_is_refused(file: str) -> None:
    with pytest.raises(Invalid):
        descriptor.parse(file)


def test_a_text_that_stands_for_gigabytes_is_refused_at_once() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(Invalid, match="aliases"):
        descriptor.parse("\n".join([*levels, "schemaVersion: *a9"]))


@given(st.text(max_size=400))
def test_any_text_is_read_or_refused(file: str) -> None:
    try:
        descriptor.parse(file).wire()
    except Invalid as error:
        str(error).encode()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=12,
)
KEYS = st.sampled_from(
    [
        "name",
        "type",
        "service",
        "port",
        "basePath",
        "networkVisibilities",
        "networkVisibility",
        "displayName",
        "schemaFilePath",
    ]
)


@given(
    st.dictionaries(st.sampled_from(["endpoints", "dependencies", "configurations", "proxy"]), VALUES),
    st.dictionaries(KEYS, VALUES),
)
def test_any_value_at_any_place_is_read_or_refused(root: dict[str, object], endpoint: dict[str, object]) -> None:
    import yaml

    for document in (root, {"endpoints": [ENDPOINT | endpoint]}):
        try:
            descriptor.parse(yaml.safe_dump({"schemaVersion": "1.2", **document}, allow_unicode=True)).wire()
        except Invalid as error:
            str(error).encode()


def test_the_older_files_are_named_and_lose_against_the_newer(tmp_path) -> None:
    (tmp_path / ".choreo").mkdir()
    (tmp_path / ".choreo/endpoints.yaml").write_text("version: 0.1")
    assert "older form" in descriptor.read(Tree(tmp_path)).warnings[0]
    (tmp_path / ".choreo/component.yaml").write_text(text())
    assert descriptor.read(Tree(tmp_path)).endpoints[0].name == "api"
