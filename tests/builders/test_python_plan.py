"""What the Python buildpack decides, without running anything."""

from __future__ import annotations

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


def test_only_installing_may_reach_the_network(plan_of) -> None:
    plan = plan_of({"requirements.txt": "flask\n"})
    fetching = [step.argv[1] for step in (*plan.layers[0].steps, *plan.steps) if step.fetches]
    assert fetching == ["pip"]


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"app.py": "app = Flask()\n", "requirements.txt": "gunicorn\n"}, "gunicorn --bind 0.0.0.0:$PORT app:app"),
        ({"main.py": "app = FastAPI()\n", "requirements.txt": "uvicorn\n"}, "uvicorn --host 0.0.0.0 --port $PORT main:app"),
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
