"""Python: from a repository on this machine to a signed artifact in the store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minuet.builders.buildpacks.port import Request
from minuet.builders.buildpacks.python import Python
from minuet.builders.tree import Tree
from minuet.protocol import signing
from tests.given.repository import Repository, python_app
from tests.given.workbench import SAMPLES, Built, Workbench, failed, sample


@pytest.fixture(scope="module")
def source(bench: Workbench) -> Repository:
    return bench.repository(sample("python-hello"))


@pytest.fixture(scope="module")
def built(bench: Workbench, source: Repository) -> Built:
    return bench.build(source, config={"buildpack": "python", "buildPackLangVersion": "3.11"})


def test_a_repository_becomes_a_signed_artifact(bench: Workbench, built: Built, source: Repository) -> None:
    artifact = built.artifact
    assert built.result.commit == source.git("rev-parse", "HEAD").stdout.strip()
    signing.verify(bench.orders.registrations[0].public_key, artifact.manifest.encode(), artifact.signature)
    manifest = json.loads(artifact.manifest)
    assert [layer["target"] for layer in manifest["layers"]] == ["/app", "/layers/python"]
    assert artifact.command.startswith("gunicorn")
    assert artifact.port == 8080
    assert bench.fetch(artifact.digest, artifact.digest) == artifact.manifest.encode()
    assert "bin/gunicorn" in built.files("/layers/python")
    assert built.read("app.py") == (SAMPLES / "python-hello" / "app.py").read_bytes()


def test_every_phase_is_timed_and_told_while_it_happens(built: Built) -> None:
    names = [phase.name for phase in built.result.phases]
    assert names == ["fetch", "detect", "plan", "restore", "build", "export"]
    assert all(phase.state == "Succeeded" and phase.seconds > 0 for phase in built.result.phases)
    running = [news.phases[-1].name for news in built.progress if news.phases and news.phases[-1].state == "Running"]
    assert running[0] == "fetch"
    assert set(running) == set(names)


def test_the_bill_of_materials_names_what_was_really_installed(built: Built) -> None:
    installed = built.packages()
    assert installed["flask"] == "3.1.2"
    assert "werkzeug" in installed, "what was installed without being asked for is missing"


def test_a_change_of_the_source_alone_installs_nothing(bench: Workbench, source: Repository, built: Built) -> None:
    source.commit({"app.py": (SAMPLES / "python-hello" / "app.py").read_text() + "\n# changed\n"})
    again = bench.build(source)
    assert again.phase("restore") == "dependencies reused"
    layers = {layer["target"]: layer["digest"] for layer in again.artifact.layers}
    before = {layer["target"]: layer["digest"] for layer in built.artifact.layers}
    assert layers["/layers/python"] == before["/layers/python"]
    assert layers["/app"] != before["/app"]


def test_another_organization_does_not_share_the_dependencies(bench: Workbench, built: Built) -> None:
    other = bench.build(sample("python-hello"), organization_id="org_2")
    assert other.phase("restore") == "dependencies installed"
    assert other.artifact.size > 0


def test_the_same_commit_gives_the_same_artifact(bench: Workbench) -> None:
    source = bench.repository(python_app())
    first, second = bench.build(source), bench.build(source)
    assert first.artifact.digest == second.artifact.digest


def test_bytecode_comes_along_and_does_not_depend_on_times(built: Built) -> None:
    cached = [name for name in built.files() if name.endswith(".pyc")]
    assert cached
    flags = int.from_bytes(built.read(cached[0])[4:8], "little")
    assert flags & 1, "the bytecode is checked by time, which an archive does not keep"


def test_a_syntax_error_names_file_and_line(bench: Workbench) -> None:
    built = bench.build(python_app() | {"shop/cart.py": "ok = 1\ndef broken(:\n    pass\n"})
    failed(built, "CompileFailed", r"shop/cart\.py, line 2", "SyntaxError")


def test_without_a_start_command_the_build_says_so(bench: Workbench) -> None:
    failed(bench.build({"requirements.txt": "", "library.py": "x = 1\n"}), "StartCommandMissing", "Procfile")


def test_a_dependency_that_does_not_exist_is_named(bench: Workbench) -> None:
    files = python_app() | {"requirements.txt": "a-package-that-nobody-has-made-minuet==1.0\n"}
    failed(bench.build(files), "DependencyNotFound", "a-package-that-nobody-has-made-minuet")


def test_a_version_that_does_not_exist_is_named(bench: Workbench) -> None:
    failed(bench.build(python_app() | {"requirements.txt": "flask==99.1\n"}), "DependencyNotFound", "flask==99.1")


def test_a_host_that_is_no_package_source_is_named(bench: Workbench) -> None:
    files = python_app() | {"requirements.txt": "thing @ https://downloads.example.com/thing-1.0-py3-none-any.whl\n"}
    failed(bench.build(files), "HostForbidden", r"downloads\.example\.com")


def test_a_language_version_that_cannot_be_had_is_refused_with_those_that_can(bench: Workbench) -> None:
    config = {"buildpack": "python", "buildPackLangVersion": "3.7"}
    failed(bench.build(python_app(), config=config), "VersionUnavailable", r"3\.11")


@pytest.mark.parametrize("spelling", ["3.11", "3.11.x", "3.11.2"])
def test_a_version_may_be_spelled_in_the_usual_ways(bench: Workbench, spelling: str) -> None:
    config = {"buildpack": "python", "buildPackLangVersion": spelling}
    assert bench.build(python_app(), config=config).artifact.toolchain == "python 3.11"


SETUP = "from setuptools import setup\nsetup(name='shop', version='1', py_modules=['shop'], install_requires=['itsdangerous==2.2.0'])\n"


@pytest.mark.parametrize("requirements", [None, "-e .\n"])
def test_a_project_that_setup_describes_is_installed_with_what_it_needs(
    bench: Workbench, requirements: str | None
) -> None:
    files = python_app() | {"setup.py": SETUP, "shop.py": "import itsdangerous\n"}
    built = bench.build(files | ({"requirements.txt": requirements} if requirements else {}))
    assert built.packages() == {"itsdangerous": "2.2.0", "shop": "1"}
    assert any(name.endswith("site-packages/shop.py") for name in built.files("/layers/python"))
    assert not any(name.endswith(".egg-info") for name in built.files())


def test_dependencies_of_a_project_file_are_installed(bench: Workbench) -> None:
    project = '[project]\nname = "shop"\nversion = "1"\ndependencies = ["itsdangerous==2.2.0"]\n'
    built = bench.build(python_app() | {"pyproject.toml": project})
    assert built.packages() == {"itsdangerous": "2.2.0"}


PIPFILE = '[packages]\nitsdangerous = "==2.2.0"\nmarkupsafe = {version = "*"}\n\n[dev-packages]\nflask = "*"\n'
PIPFILE_LOCK = (
    '{"default": {"itsdangerous": {"version": "==2.1.2", "markers": "python_version >= \'3.7\'"}}, "develop": {}}'
)
POETRY_LOCK = """
[[package]]
name = "itsdangerous"
version = "2.2.0"
optional = false
groups = ["main"]
files = []

[[package]]
name = "flask"
version = "3.1.2"
optional = false
groups = ["dev"]
files = []
"""


@pytest.mark.parametrize(
    ("files", "version"),
    [
        ({"Pipfile": PIPFILE}, "2.2.0"),
        ({"Pipfile": PIPFILE, "Pipfile.lock": PIPFILE_LOCK}, "2.1.2"),
        ({"pyproject.toml": "[tool.poetry]\n", "poetry.lock": POETRY_LOCK}, "2.2.0"),
    ],
    ids=["Pipfile", "Pipfile.lock", "poetry.lock"],
)
def test_what_pipenv_and_poetry_wrote_is_installed(bench: Workbench, files: dict[str, str], version: str) -> None:
    packages = bench.build(python_app() | files).packages()
    assert packages["itsdangerous"] == version
    assert "flask" not in packages, "what is for development was installed"


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"app.py": "from flask import Flask\napp = Flask('a')\n", "requirements.txt": "flask\n"},
         "flask --app app:app run --host 0.0.0.0 --port $PORT"),
        ({"main.py": "from fastapi import FastAPI\napp: FastAPI = FastAPI()\n", "requirements.txt": "fastapi[standard]\n"},
         "uvicorn --host 0.0.0.0 --port $PORT main:app"),
        ({"wsgi.py": "application = 1\n", "requirements.txt": "gunicorn\n"},
         "gunicorn --bind 0.0.0.0:$PORT wsgi:application"),
        ({"manage.py": "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\n",
          "requirements.txt": "django\ngunicorn\n"}, "gunicorn --bind 0.0.0.0:$PORT shop.wsgi"),
        ({"main.py": "if __name__ == '__main__':\n    print(1)\n"}, "python main.py"),
        ({"app.py": "", "Procfile": "# ours\nweb:php -S 0.0.0.0:$PORT\n"}, "php -S 0.0.0.0:$PORT"),
        ({"app.py": "", "Procfile": "worker: python app.py\n"}, "python app.py"),
    ],
)  # fmt: skip
def test_what_nothing_says_how_to_start_is_started_as_its_framework_is(
    tmp_path: Path, files: dict[str, str], command: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert Python().plan(Request(Tree(tmp_path), {}, 8080)).command == command
