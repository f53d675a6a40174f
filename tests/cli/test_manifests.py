"""Manifests are checked before anything is asked; differences are worked out without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minuet.cli import difference, manifest
from minuet.kernel.errors import Conflict, Invalid

SHOP = """\
kind: Deployment
project: shop
component: web
environment: Development
build: web-1
---
kind: Component
project: shop
name: web
type: service
buildConfigs: {buildpack: python, port: 8080}
---
kind: Project
name: shop
---
kind: Configuration
project: shop
component: web
environment: Development
variables: {GREETING: hello}
secrets:
  KEY: {fromEnvironment: SHOP_KEY}
"""


def read(tmp_path: Path, text: str) -> list[Any]:
    file = tmp_path / "shop.yaml"
    file.write_text(text)
    return manifest.read((str(file),))


def test_documents_come_in_the_order_in_which_they_need_each_other(tmp_path: Path) -> None:
    kinds = [item.kind for item in read(tmp_path, SHOP)]
    assert kinds == ["Project", "Component", "Configuration", "Deployment"]


def test_a_directory_is_read_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: Project\nname: a\n")
    (tmp_path / "b.yml").write_text("---\nkind: Project\nname: b\n---\n")
    (tmp_path / "c.txt").write_text("not read")
    assert [item.name for item in manifest.read((str(tmp_path),))] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "field", "told"),
    [
        ("kind: Projekt\nname: a", "kind", "did you mean Project"),
        ("name: a", "kind", "one of Project"),
        ("- a", "kind", "one of Project"),
        ("kind: Project\nnme: a", "name", "Field required"),
        ("kind: Project\nname: a\ndisplyName: b", "displyName", "did you mean displayName"),
        (
            "kind: Component\nproject: a\nname: b\ntype: service\nrepository: {brnch: main}",
            "repository.brnch",
            "did you mean branch",
        ),
        ("kind: Component\nproject: a\nname: b\ntype: servce", "type", "'service'"),
        (
            "kind: Configuration\nproject: a\ncomponent: b\nenvironment: c\nvariables: {PORT: 8080}",
            "variables.PORT",
            "write it in quotes",
        ),
        ("kind: Deployment\nproject: a\ncomponent: b\nenvironment: c\nreplicas: -1", "replicas", "greater"),
        (
            "kind: Configuration\nproject: a\ncomponent: b\nenvironment: c\nhealth: {period: 0}",
            "health.period",
            "greater",
        ),
        (
            "kind: Configuration\nproject: a\ncomponent: b\nenvironment: c\nhealth: {kind: exec}",
            "health.kind",
            "'http'",
        ),
        (
            "kind: Configuration\nproject: a\ncomponent: b\nenvironment: c\nhealth: {paht: /}",
            "health.paht",
            "did you mean path",
        ),
    ],
)
def test_what_a_manifest_may_not_say_is_named_with_its_field(text: str, field: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        read(tmp_path, text)
    error = caught.value
    assert field in [violation.field for violation in error.violations]
    assert told in " ".join([error.message, error.hint or "", *(item.message for item in error.violations)])
    assert "shop.yaml, document 1" in error.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind: [", "not valid YAML"),
        ("kind: Project\nname: a\nname: b", "the key name stands twice"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=told):
        read(tmp_path, text)


def test_a_place_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        manifest.read((str(tmp_path / "nowhere.yaml"),))
    monkeypatch.setattr(manifest, "_MAX_BYTES", 10)
    with pytest.raises(Invalid, match="longer than"):
        read(tmp_path, SHOP)


CONFIGURATION = manifest.Configuration(
    kind="Configuration",
    project="shop",
    component="web",
    environment="Development",
    variables={"A": "1", "B": "2"},
    files={"/app/config.js": "x"},
    secrets={"KEY": None},
)


def entry(name: str, kind: str, value: str | None = None, path: str | None = None) -> dict[str, Any]:
    return {"name": name, "kind": kind, "value": value, "mountPath": path}


def test_only_what_differs_is_set_and_what_is_left_out_stays() -> None:
    found = {"entries": [entry("A", "variable", "1"), entry("B", "variable", "old"), entry("EXTRA", "variable", "x")]}
    step = difference.configuration(CONFIGURATION, found, {"KEY": "s3cret"}.get, prune=False)
    assert [item["name"] for item in step.body["set"]] == ["B", "app_config_js", "KEY"]
    assert step.body["unset"] == []
    assert step.lines == ["~ B", "+ app_config_js", "+ KEY"]
    assert step.kept == ["! EXTRA is set and not in the file; --prune removes it"]
    assert "s3cret" not in "".join([*step.lines, *step.kept, step.title])


def test_pruning_removes_variables_and_files_but_never_secrets() -> None:
    found = {
        "entries": [
            entry("EXTRA", "variable", "x"),
            entry("app_old", "file", "x", "/app/old"),
            entry("OTHER", "secret"),
            entry("app_key", "secret-file", None, "/app/key"),
        ]
    }
    step = difference.configuration(CONFIGURATION, found, {"KEY": "s"}.get, prune=True)
    assert step.body["unset"] == ["EXTRA", "app_old"]


def test_a_configuration_that_is_so_changes_nothing() -> None:
    found = {
        "entries": [
            entry("A", "variable", "1"),
            entry("B", "variable", "2"),
            entry("app_config_js", "file", "x", "/app/config.js"),
            entry("KEY", "secret"),
        ]
    }
    assert not difference.configuration(CONFIGURATION, found, {}.get, prune=True).changes


def test_a_new_secret_without_a_value_is_refused() -> None:
    with pytest.raises(Invalid, match=r"\$KEY"):
        difference.configuration(CONFIGURATION, {"entries": []}, {}.get, prune=False)


def test_a_type_cannot_change() -> None:
    wanted = manifest.Component(kind="Component", project="shop", name="web", type="service")
    with pytest.raises(Conflict):
        difference.component(wanted, {"type": "webhook"})


@pytest.mark.parametrize(
    ("wanted", "current", "changes"),
    [
        ({"build": "web-1"}, None, True),
        ({"build": "web-1"}, {"build": "web-1", "replicas": 1}, False),
        ({"build": "web-2"}, {"build": "web-1", "replicas": 1}, True),
        ({"replicas": 2}, {"build": "web-1", "replicas": 1}, True),
        ({"replicas": 1}, {"build": "web-1", "replicas": 1}, False),
        ({}, {"build": "web-1", "replicas": 1}, False),
        ({}, None, True),
    ],
)
def test_a_deployment_is_made_only_when_something_else_would_run(
    wanted: dict[str, Any], current: dict[str, Any] | None, changes: bool
) -> None:
    asked = manifest.Deployment(kind="Deployment", project="shop", component="web", environment="Development", **wanted)
    step = difference.deployment(asked, {"current": current})
    assert step.changes is changes
    assert step.body["environment"] == "development"


CHECK = {
    "kind": "http",
    "port": None,
    "path": "/healthz",
    "failureThreshold": 3,
    "successThreshold": 1,
    "initialDelay": 0,
    "period": 30,
    "timeout": 10,
}


def with_health(**given: Any) -> manifest.Configuration:
    check = manifest.HealthCheck(**given) if given else None
    return manifest.Configuration(
        kind="Configuration", project="shop", component="web", environment="Development", health=check
    )


def health_step(wanted: manifest.Configuration, declared: dict[str, Any] | None, *, prune: bool = False) -> Any:
    return difference.configuration(wanted, {"entries": [], "health": declared}, {}.get, prune=prune)


def test_a_health_check_is_sent_whole_when_it_differs_and_only_then() -> None:
    step = health_step(with_health(path="/healthz"), None)
    assert step.body["health"] == CHECK
    assert step.lines == [
        "+ health check: GET /healthz every 30 s, timeout 10 s, out after 3 failures, in after 1 success"
    ]
    assert not health_step(with_health(path="/healthz"), CHECK).changes
    (line,) = health_step(with_health(path="/healthz", period=5), CHECK).lines
    assert line.startswith("~ health check: GET /healthz every 30 s")
    assert "-> GET /healthz every 5 s" in line
    tcp = CHECK | {"kind": "tcp", "port": 9000, "path": None}
    assert not health_step(with_health(kind="tcp", port=9000), tcp).changes
    assert not health_step(with_health(initial_delay=0), CHECK | {"path": "/"}).changes


def test_a_health_check_that_is_left_out_stays_unless_pruned() -> None:
    step = health_step(with_health(), CHECK)
    assert not step.changes
    assert "health" not in step.body
    assert step.kept == ["! a health check is set and not in the file; --prune removes it"]
    pruned = health_step(with_health(), CHECK, prune=True)
    assert (pruned.lines, pruned.body["health"]) == (["- health check"], None)
    assert not health_step(with_health(), None, prune=True).changes
