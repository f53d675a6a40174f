"""Manifests are checked before anything is asked; differences are worked out without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minuet.cli import (
    config_sources,
    configuration_difference,
    deployment_difference,
    difference,
    manifest,
    manifest_files,
)
from minuet.control.catalog import model as catalog
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
    return manifest_files.read((str(file),))


def test_documents_come_in_the_order_in_which_they_need_each_other(tmp_path: Path) -> None:
    kinds = [item.kind for item in read(tmp_path, SHOP)]
    assert kinds == ["Project", "Component", "Configuration", "Deployment"]


def test_a_directory_is_read_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: Project\nname: a\n")
    (tmp_path / "b.yml").write_text("---\nkind: Project\nname: b\n---\n")
    (tmp_path / "c.txt").write_text("not read")
    assert [item.name for item in manifest_files.read((str(tmp_path),))] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "field", "told"),
    [
        ("kind: Projekt\nname: a", "kind", "did you mean Project"),
        ("name: a", "kind", "one of Environment"),
        ("- a", "kind", "one of Environment"),
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
        manifest_files.read((str(tmp_path / "nowhere.yaml"),))
    monkeypatch.setattr(manifest_files, "MAX_BYTES", 10)
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
    step = configuration_difference.configuration(CONFIGURATION, found, {"KEY": "s3cret"}.get, prune=False)
    names = [item["name"] for item in step.body["set"]]
    assert names == ["B", config_sources.file_name("/app/config.js"), "KEY"]
    assert step.body["unset"] == []
    assert step.lines == ["~ B: old -> 2", "+ /app/config.js: a file of 1 characters", "+ KEY: (secret)"]
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
    step = configuration_difference.configuration(CONFIGURATION, found, {"KEY": "s"}.get, prune=True)
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
    assert not configuration_difference.configuration(CONFIGURATION, found, {}.get, prune=True).changes


def test_a_new_secret_without_a_value_is_refused() -> None:
    with pytest.raises(Invalid, match=r"\$KEY"):
        configuration_difference.configuration(CONFIGURATION, {"entries": []}, {}.get, prune=False)


def test_a_type_cannot_change() -> None:
    wanted = manifest.Component(kind="Component", project="shop", name="web", type="service")
    with pytest.raises(Conflict):
        difference.component(wanted, {"type": "webhook"}, prune=False)


def component(**said: Any) -> manifest.Component:
    identity = {"kind": "Component", "project": "shop", "name": "web", "type": "service"}
    return manifest.Component.model_validate(identity | said)


THERE = {
    "type": "service",
    "displayName": "The web",
    "description": "sells things",
    "repository": {"url": "https://git.example.com/x.git", "branch": "next", "directory": "api", "credential": "forge"},
    "buildConfigs": {"buildpack": "python", "port": "9000"},
    "buildEnvironment": {"A": "1", "B": "2"},
    "autoBuild": False,
    "autoDeploy": True,
}


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"repository": {}},
        {"repository": {"branch": "next"}},
        {"repository": {"directory": "./api"}},
        {"repository": {"directory": "/api/"}},
        {"description": "sells\n  things\n"},
        {"buildConfigs": {}},
        {"buildConfigs": {"port": 9000}},
        {"buildConfigs": {"runCommand": ""}},
        {"buildEnvironment": {"B": "2"}},
        {"displayName": None},
    ],
    ids=str,
)
def test_what_a_component_leaves_out_stays_and_what_is_so_already_is_no_change(said: dict[str, Any]) -> None:
    step = difference.component(component(**said), THERE, prune=False)
    assert (step.lines, step.body) == ([], {})


@pytest.mark.parametrize(
    ("said", "body"),
    [
        ({"repository": {"branch": "main"}}, {"repository": {"branch": "main"}}),
        ({"repository": {"credential": None}}, {"repository": {"credential": None}}),
        ({"buildConfigs": {"port": ""}}, {"buildConfigs": {"buildpack": "python"}}),
        ({"buildConfigs": {"port": 1}}, {"buildConfigs": {"buildpack": "python", "port": "1"}}),
        ({"buildEnvironment": {"C": ""}}, {"buildEnvironment": {"A": "1", "B": "2", "C": ""}}),
        ({"autoDeploy": False}, {"autoDeploy": False}),
    ],
    ids=str,
)
def test_only_what_a_component_says_otherwise_is_changed(said: dict[str, Any], body: dict[str, Any]) -> None:
    assert difference.component(component(**said), THERE, prune=False).body == body


def test_pruning_removes_build_settings_that_a_file_does_not_name() -> None:
    said = component(buildConfigs={"buildpack": "python"}, buildEnvironment={})
    kept = difference.component(said, THERE, prune=False)
    assert "! buildConfigs.port is set and not in the file; --prune removes it" in kept.kept
    pruned = difference.component(said, THERE, prune=True)
    assert pruned.body == {"buildConfigs": {"buildpack": "python"}, "buildEnvironment": {}}


@given(st.text(st.sampled_from("ab./ "), max_size=12))
def test_a_directory_is_normalised_as_the_server_does(path: str) -> None:
    try:
        kept = catalog.check_directory(path)
    except Invalid:
        return
    assert manifest.directory(path) == kept


@given(st.text())
def test_a_description_is_normalised_as_the_server_does(text: str) -> None:
    try:
        kept = catalog.check_description(text)
    except Invalid:
        return
    assert manifest.one_line(text) == kept


def test_a_secret_that_exists_as_a_plain_value_becomes_secret_or_is_refused() -> None:
    wanted = CONFIGURATION.model_copy(
        update={"variables": {}, "files": {}, "secret_files": {"/app/key": manifest.SecretSource(from_environment="K")}}
    )
    found = {"entries": [entry("KEY", "variable", "plain"), entry("app_key", "file", "plain", "/app/key")]}
    with pytest.raises(Invalid, match=r"\$KEY"):
        configuration_difference.configuration(wanted, found, {}.get, prune=False)
    step = configuration_difference.configuration(wanted, found, {"KEY": "s3cret", "K": "k3y"}.get, prune=False)
    assert step.lines == ["~ KEY: plain -> (secret)", "~ /app/key: a file of 5 characters -> (secret)"]
    assert step.body["set"] == [
        {"name": "KEY", "kind": "secret", "value": "s3cret"},
        {"name": "app_key", "kind": "secret-file", "mountPath": "/app/key", "value": "k3y"},
    ]


def test_a_dry_run_tells_that_a_value_is_missing_and_goes_on() -> None:
    step = configuration_difference.configuration(CONFIGURATION, {"entries": []}, {}.get, prune=False, dry=True)
    assert "! KEY is not in $KEY" in step.kept


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    wanted = CONFIGURATION.model_copy(
        update={"secrets": {"KEY": manifest.SecretSource(from_file=str(tmp_path / "key"))}}
    )
    step = configuration_difference.configuration(wanted, {"entries": []}, {}.get, prune=False)
    assert step.body["set"][-1] == {"name": "KEY", "kind": "secret", "value": "s3cret\n"}


def test_a_name_is_plain_or_secret_and_a_source_is_one(tmp_path: Path) -> None:
    head = "kind: Configuration\nproject: a\ncomponent: b\nenvironment: c\n"
    with pytest.raises(Invalid, match="A is both plain and secret"):
        read(tmp_path, f"{head}variables: {{A: x}}\nsecrets: {{A: null}}")
    with pytest.raises(Invalid, match="exactly one"):
        read(tmp_path, f"{head}secrets: {{A: {{fromFile: x, fromEnvironment: y}}}}")


def test_a_new_credential_takes_its_value_from_where_it_is_told_and_an_old_one_stays() -> None:
    source = manifest.SecretSource(from_environment="FORGE")
    wanted = manifest.Credential(kind="Credential", name="forge", type="token", username="me", value=source)
    step = difference.credential(wanted, None, {"FORGE": "t0ken\n"}.get, dry=False)
    assert step.body == {"name": "forge", "kind": "token", "username": "me", "token": "t0ken"}
    assert "t0ken" not in " ".join(step.lines)
    found = {"name": "forge", "kind": "token", "username": "me"}
    assert not difference.credential(wanted, found, {}.get, dry=False).changes
    with pytest.raises(Conflict):
        difference.credential(wanted, found | {"kind": "deploy-key"}, {}.get, dry=False)
    with pytest.raises(Invalid, match="FORGE"):
        difference.credential(wanted, None, {}.get, dry=False)


ACTIVE = {"build": "web-1", "replicas": 2, "state": "active"}
SUSPENDED = ACTIVE | {"state": "suspended"}
NAMED = {"environment": "development", "build": "web-2", "replicas": 2}


@pytest.mark.parametrize(
    ("wanted", "current", "verbs"),
    [
        ({"build": "web-1"}, None, [("deploy", {"environment": "development", "build": "web-1"})]),
        ({}, None, [("deploy", {"environment": "development"})]),
        ({}, ACTIVE, []),
        ({"build": "web-1", "replicas": 2, "state": "active"}, ACTIVE, []),
        ({"build": "web-1", "replicas": 2}, SUSPENDED, []),
        ({"build": "web-2"}, ACTIVE, [("deploy", NAMED)]),
        ({"build": "web-2"}, SUSPENDED, [("deploy", NAMED), ("suspend", {})]),
        ({"build": "web-2", "state": "active"}, SUSPENDED, [("deploy", NAMED)]),
        ({"replicas": 3}, ACTIVE, [("scale", {"replicas": 3})]),
        ({"replicas": 0}, ACTIVE, [("scale", {"replicas": 0})]),
        ({"replicas": 3, "state": "suspended"}, ACTIVE, [("scale", {"replicas": 3}), ("suspend", {})]),
        ({"state": "suspended"}, ACTIVE, [("suspend", {})]),
        ({"state": "active"}, SUSPENDED, [("resume", {})]),
        (
            {"build": "web-2", "replicas": 2, "state": "suspended"},
            None,
            [("deploy", NAMED), ("suspend", {})],
        ),
        (
            {"build": "web-2", "replicas": 0, "state": "suspended"},
            None,
            [("deploy", NAMED | {"replicas": 0})],
        ),
    ],
    ids=str,
)
def test_a_deployment_takes_the_verbs_that_lead_to_what_is_wanted(
    wanted: dict[str, Any], current: dict[str, Any] | None, verbs: list[tuple[str, dict[str, Any]]]
) -> None:
    asked = manifest.Deployment(kind="Deployment", project="shop", component="web", environment="Development", **wanted)
    step = deployment_difference.deployment(asked, {"current": current})
    assert list(step.verbs) == verbs
    assert step.changes is bool(verbs)


def test_the_way_to_an_environment_is_that_of_the_default_pipeline() -> None:
    pipelines = [
        {"name": "a", "environments": ["qa", "production"]},
        {"name": "default", "environments": ["development", "staging", "production"]},
    ]
    assert deployment_difference.way(pipelines, "production") == ("development", "staging")
    assert deployment_difference.way(pipelines, "qa") == ()
    assert deployment_difference.way(pipelines, "elsewhere") == ()


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [*{before}, *{before}, *{before}, *{before}, *{before}, *{before}, *{before}, *{before}]\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        f"{BOMB}kind: Project\nname: *h\n",
        f"{BOMB}kind: *h\n",
        "kind: Project\nname: &a [*a]\n",
        "kind: Project\nname: &a {b: {c: *a}}\n",
        "kind: &k Project\n*k : " + "[" * 50 + "]" * 50,
        "kind: Project\nname:\n" + "- x\n" * 2_000,
        "kind: Project\n" + "".join(f"k{number}: x\n" for number in range(2_000)),
    ],
    ids=["aliases", "kind", "recursive", "nested", "odd", "long list", "many keys"],
)
def test_no_file_makes_more_of_an_error_than_a_person_can_read(text: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        read(tmp_path, text)
    told = [caught.value.message, *(f"{item.field}{item.message}{item.given}" for item in caught.value.violations)]
    assert len("".join(told)) < 10_000


def test_aliases_that_save_a_few_lines_are_fine(tmp_path: Path) -> None:
    text = (
        "kind: Configuration\nproject: a\ncomponent: b\nenvironment: c\n"
        "variables: &v {A: '1'}\nfiles: {}\nsecrets: {}\n"
        "---\nkind: Pipeline\nname: x\nenvironments: &e [one, two]\n"
    )
    assert read(tmp_path, text)[0].environments == ["one", "two"]


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
    return configuration_difference.configuration(wanted, {"entries": [], "health": declared}, {}.get, prune=prune)


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
