"""Go: one binary for each program, modules and compiler's memory in layers of the build alone."""

from __future__ import annotations

import pytest

from minuet.builders.buildpacks import golang
from tests.given.workbench import Built, Workbench, failed, sample

MAIN = 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("hello") }\n'
MODULE = "module example.com/shop\n\ngo 1.21\n"


@pytest.fixture(scope="module", autouse=True)
def go() -> None:
    if not golang.obtainable():
        pytest.skip("this machine has no Go and the package index does not answer")


@pytest.fixture(scope="module")
def built(bench: Workbench) -> Built:
    return bench.build(sample("go-hello"))


def test_the_sample_becomes_one_binary(built: Built) -> None:
    artifact = built.artifact
    assert [layer["target"] for layer in artifact.layers] == ["/app"]
    assert artifact.command == "exec /app/bin/go-hello"
    assert built.read("bin/go-hello")[:4] == b"\x7fELF"
    assert built.packages() == {"github.com/google/uuid": "v1.6.0"}


def test_a_change_of_the_source_alone_fetches_nothing(bench: Workbench, built: Built) -> None:
    again = bench.build({**sample("go-hello"), "more.go": "package main\n\nconst more = 1\n"})
    assert again.phase("restore") == "dependencies reused"
    assert again.artifact.digest != built.artifact.digest


def test_the_same_source_gives_the_same_binary(bench: Workbench, built: Built) -> None:
    again = bench.build(sample("go-hello"))
    assert again.artifact.layers == built.artifact.layers


def test_of_several_programs_the_server_is_started_and_all_are_built(bench: Workbench) -> None:
    built = bench.build(
        {"go.mod": MODULE, "client/main.go": MAIN, "server/main.go": MAIN, "gen.go": "//go:build ignore\n\n" + MAIN}
    )
    assert built.artifact.command == "exec /app/bin/server"
    assert {"bin/server", "bin/client"} <= set(built.files())
    assert any("several programs" in warning for warning in built.result.warnings)


def test_only_the_program_that_is_started_can_fail_the_build(bench: Workbench) -> None:
    broken = MAIN.replace("fmt.Println", "fmt.Printline")
    files = {"go.mod": MODULE, "main.go": MAIN, "tools/gen/main.go": broken, "example/go.mod": MODULE,
             "example/main.go": broken, "testdata/x/main.go": broken, "_old/main.go": broken,
             "magefile.go": "//go:build mage\n\n" + broken}  # fmt: skip
    built = bench.build(files)
    assert built.artifact.command == "exec /app/bin/shop"
    assert "left out: gen does not build" in built.log
    assert "bin/shop" in built.files()
    failed(bench.build({**files, "Procfile": "web: gen --port $PORT"}), "CompileFailed", r"tools/gen/main\.go")


def test_a_compile_error_names_file_and_line(bench: Workbench) -> None:
    built = bench.build({"go.mod": MODULE, "main.go": MAIN.replace("fmt.Println", "fmt.Printline")})
    failed(built, "CompileFailed", r"main\.go, line 5", "Printline")


def test_a_module_that_go_mod_does_not_name_is_told(bench: Workbench) -> None:
    built = bench.build({"go.mod": MODULE, "main.go": MAIN.replace('"fmt"', '"fmt"\n\t_ "example.com/nothing/here"')
                         .replace('import "fmt"\n\t_ "example.com/nothing/here"',
                                  'import (\n\t"fmt"\n\t_ "example.com/nothing/here"\n)')})  # fmt: skip
    failed(built, "DependencyNotFound", r"example\.com/nothing/here")


def test_a_version_older_than_the_module_needs_is_refused(bench: Workbench) -> None:
    config = {"buildpack": "go", "buildPackLangVersion": "1"}
    built = bench.build({"go.mod": MODULE.replace("1.21", "1.99"), "main.go": MAIN}, config=config)
    failed(built, "VersionUnavailable", r"1\.99", "build configuration asks for Go 1", r"1\.2")


def test_another_version_comes_from_the_package_index(bench: Workbench) -> None:
    version = next((item for item in golang.obtainable() if item.startswith("1.25.")), None)
    if version is None:
        pytest.skip("the package index does not answer")
    config = {"buildpack": "go", "buildPackLangVersion": "1.25"}
    built = bench.build({"go.mod": MODULE, "main.go": MAIN}, config=config)
    assert built.artifact.toolchain == f"go {version}"
    assert [layer["target"] for layer in built.artifact.layers] == ["/app"]
    assert f"go{version}".encode() in built.read("bin/shop")
