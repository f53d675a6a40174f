"""What the Python buildpack decides, without running anything."""

from __future__ import annotations

import json

import pytest

from minuet.builders.buildpacks.port import Plan, Request
from minuet.builders.buildpacks.python import Python, interpreters
from minuet.builders.failure import BuildFailure
from minuet.builders.tree import Tree

VERSION = next(iter(interpreters()), None)
pytestmark = pytest.mark.skipif(VERSION is None, reason="needs a Python below /usr/bin")


@pytest.fixture
def plan_of(tmp_path_factory: pytest.TempPathFactory):
    def plan(files: dict[str, str], **config: str) -> Plan:
        folder = tmp_path_factory.mktemp("source")
        for name, content in files.items():
            (folder / name).write_text(content)
        return Python().plan(Request(Tree(folder), {"runCommand": "python app.py"} | config, 8080))

    return plan


def key(plan: Plan) -> str:
    return plan.layers[0].key


def test_the_layer_is_named_by_what_decides_its_content(plan_of) -> None:
    base = plan_of({"requirements.txt": "flask==3.1.2\n", "app.py": "1"})
    assert key(base) == key(plan_of({"requirements.txt": "flask==3.1.2\n", "app.py": "2"}))
    assert key(base) != key(plan_of({"requirements.txt": "flask==3.1.1\n"}))


def test_an_included_file_of_requirements_counts(plan_of) -> None:
    files = {"requirements.txt": "-r base.txt\n", "base.txt": "a==1\n"}
    assert key(plan_of(files)) != key(plan_of(files | {"base.txt": "a==2\n"}))


def test_a_lock_file_wins_over_requirements(plan_of) -> None:
    files = {"uv.lock": "version = 1\n", "pyproject.toml": "[project]\nname='a'\n", "requirements.txt": "flask\n"}
    assert any("sync" in step.argv for step in plan_of(files).layers[0].steps)


@pytest.mark.parametrize("asked", ["3", "3.x", "3.x.x", " 3 "])
def test_a_version_that_is_only_begun_is_the_newest_of_them(plan_of, asked: str) -> None:
    assert plan_of({"app.py": "1"}, buildPackLangVersion=asked).toolchain == f"python {VERSION}"


@pytest.mark.parametrize("line", ["-e .", "--editable=.", ".", "./lib", "-e ./lib[extra]", "../other", ".[all]"])
def test_a_part_of_the_source_that_is_installed_counts_as_a_whole(plan_of, line: str) -> None:
    plan = plan_of({"requirements.txt": f"flask\n{line}\n"})
    assert any("cp -r /app" in word for word in plan.layers[0].steps[0].argv)
    assert not any(
        "cp -r" in word for step in plan_of({"requirements.txt": "flask\n"}).layers[0].steps for word in step.argv
    )


POETRY = """[[package]]
name = "inner"
version = "1.0"
groups = ["main"]

[package.source]
type = "{kind}"
url = "https://example.com/inner"
"""


@pytest.mark.parametrize("kind", ["git", "url", "directory", "file", "legacy"])
def test_a_package_that_poetry_took_from_elsewhere_is_never_taken_from_the_index(plan_of, kind: str) -> None:
    with pytest.raises(BuildFailure, match=f"inner is locked to {kind} https://example.com/inner") as caught:
        plan_of({"poetry.lock": POETRY.replace("{kind}", kind)})
    assert caught.value.reason == "InvalidSource"


def test_a_package_that_pipenv_took_from_another_index_is_not_taken_from_this_one(plan_of) -> None:
    lock = {
        "_meta": {"sources": [{"name": "pypi"}, {"name": "own"}]},
        "default": {"a": {"version": "==1", "index": "own"}},
    }
    with pytest.raises(BuildFailure, match="a is locked to index own"):
        plan_of({"Pipfile.lock": json.dumps(lock)})


def test_direct_dependencies_of_a_project_file_must_be_there_in_the_end(plan_of) -> None:
    project = (
        '[project]\nname = "a"\ndependencies = ["flask>=3", "tomli; python_version < \'3\'", "uvicorn[standard]"]\n'
    )
    for files in ({"pyproject.toml": project}, {"pyproject.toml": project, "uv.lock": "version = 1\n"}):
        assert plan_of(files).layers[0].steps[-1].argv[-2:] == ("flask", "uvicorn")


def test_only_installing_may_reach_the_network(plan_of) -> None:
    plan = plan_of({"requirements.txt": "flask\n"})
    fetching = [step.argv[1] for step in (*plan.layers[0].steps, *plan.steps) if step.fetches]
    assert fetching == ["pip"]


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"app.py": "app = Flask()\n", "requirements.txt": "gunicorn\n"}, "gunicorn --bind 0.0.0.0:$PORT app:app"),
        ({"main.py": "app = FastAPI()\n", "requirements.txt": "uvicorn\n"}, "uvicorn --host 0.0.0.0 --port $PORT main:app"),
        ({"app.py": "app = Flask(__name__)\nif __name__ == '__main__':\n    app.run()\n", "requirements.txt": "flask\n"},
         "flask --app app:app run --host 0.0.0.0 --port $PORT"),
        ({"app.py": "app = Flask(__name__)\napp.run(host='0.0.0.0', port=5000)\n", "requirements.txt": "flask\n"},
         "python app.py"),
        ({"server.py": "if __name__ == '__main__': pass\n"}, "python server.py"),
    ],
)  # fmt: skip
def test_a_well_known_module_is_started_as_its_framework_wants(plan_of, files: dict[str, str], command: str) -> None:
    assert plan_of(files, runCommand="").command == command


@pytest.mark.parametrize(
    ("files", "config", "reason"),
    [
        ({}, {"buildPackLangVersion": "2.7"}, "VersionUnavailable"),
        ({".python-version": "# ours\n3.4.1\n"}, {}, "VersionUnavailable"),
        ({"pyproject.toml": "[project"}, {}, "InvalidSource"),
        ({"environment.yml": ""}, {}, "InvalidSource"),
        ({"Pipfile": "[packages"}, {}, "InvalidSource"),
        ({}, {"runCommand": ""}, "StartCommandMissing"),
    ],
)
def test_what_cannot_be_built_is_told_before_anything_runs(plan_of, files, config, reason) -> None:
    with pytest.raises(BuildFailure) as caught:
        plan_of(files, **config)
    assert caught.value.reason == reason


def test_a_pin_that_loses_is_warned_of(plan_of) -> None:
    plan = plan_of({".python-version": "2.7\n"}, buildPackLangVersion=VERSION)
    assert "2.7" in plan.warnings[0]
