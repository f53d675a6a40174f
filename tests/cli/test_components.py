"""Creating a component: every spelling, every flag, and the conversation without them."""

from __future__ import annotations

import pytest

from minuet.cli.commands.component import component_type, pairs
from minuet.kernel.errors import Invalid
from tests.given.command import Command
from tests.given.recorded import Recorded, document

ORGANIZATION = "/api/v1/organizations/default"
COMPONENTS = f"{ORGANIZATION}/projects/shop/components"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("service", "service"),
        ("Service", "service"),
        ("webApp", "web-application"),
        ("web-app", "web-application"),
        ("webApplication", "web-application"),
        ("web-application", "web-application"),
        ("webhook", "webhook"),
        ("eventHandler", "event-handler"),
        ("event-handler", "event-handler"),
    ],
)
def test_a_type_is_understood_in_each_of_its_spellings(given: str, meant: str) -> None:
    assert component_type(given) == meant


def test_build_configs_come_in_one_flag_or_many_and_values_may_hold_commas() -> None:
    expected = {"buildpack": "python", "port": "8080", "runCommand": 'python -c "print(1, 2)" --x=a,b'}
    assert pairs("x", ("buildpack=python,port=8080", 'runCommand=python -c "print(1, 2)" --x=a,b')) == expected
    assert pairs("x", ('buildpack=python, port=8080,runCommand=python -c "print(1, 2)" --x=a,b',)) == expected


@pytest.mark.parametrize("text", ["buildpack", "=python", ""])
def test_what_is_no_pair_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        pairs("build-configs", (text,))


def prepare(server: Recorded) -> None:
    offers = [
        {
            "name": "python",
            "versions": ["3.10", "3.11"],
            "defaultVersion": "3.11",
            "componentTypes": ["service", "web-application"],
            "required": ["buildPackLangVersion", "port"],
        },
        {"name": "static", "versions": [], "componentTypes": ["web-application"], "required": []},
    ]
    server.on(f"GET {ORGANIZATION}/buildpacks", document({"items": offers}))
    server.on(f"GET {ORGANIZATION}/projects", document({"items": [{"name": "shop"}]}))
    server.on(f"POST {COMPONENTS}", document({"name": "web"}, 201))
    server.on(
        f"GET {ORGANIZATION}/projects/shop/repository",
        document({"cloneUrl": "http://127.0.0.1:1/git/default/shop.git"}),
    )


def test_every_flag_reaches_the_server(server: Recorded, minuet: Command) -> None:
    prepare(server)
    done = minuet(
        *("create", "component", "web", "--project", "shop", "--type", "webApp", "--repo", "https://git.example/x.git"),
        *("--branch", "release", "--directory", "front", "--credential", "forge", "--display-name", "The web"),
        *("--build-configs", "buildpack=python,port=8080", "--build-configs", "buildPackLangVersion=3.11"),
        *("--build-env", "A=1,2", "--no-auto-deploy", "--no-auto-build", "--description", "front end"),
    )
    assert done.returncode == 0, done.stderr
    assert server.asked[-1].body == {
        "name": "web",
        "type": "web-application",
        "displayName": "The web",
        "description": "front end",
        "repository": {
            "url": "https://git.example/x.git",
            "branch": "release",
            "directory": "front",
            "credential": "forge",
        },
        "buildConfigs": {"buildpack": "python", "port": "8080", "buildPackLangVersion": "3.11"},
        "buildEnvironment": {"A": "1,2"},
        "autoBuild": False,
        "autoDeploy": False,
    }
    assert "minuet create build web --project shop" in done.stderr


def test_without_flags_a_person_is_asked_for_what_the_builders_offer(server: Recorded, minuet: Command) -> None:
    prepare(server)
    typed = minuet.on_terminal(
        "create",
        "component",
        "web",
        answers=(
            ("Type", "web-application\n"),
            ("URL", "https://git.example/x.git\n"),
            ("Branch", "\n"),
            ("Directory", "front\n"),
            (r"\(detect, python, static\)", "python\n"),
            (r"\(3\.10, 3\.11\)", "\n"),
            ("port", "8080\n"),
        ),
    )
    assert typed.returncode == 0, typed.shown
    body = next(asked.body for asked in server.asked if asked.method == "POST")
    assert body["repository"]["directory"] == "front"
    assert body["buildConfigs"] == {"buildpack": "python", "buildPackLangVersion": "3.11", "port": "8080"}


def test_only_buildpacks_that_fit_the_type_are_offered(server: Recorded, minuet: Command) -> None:
    prepare(server)
    typed = minuet.on_terminal(
        "create",
        "component",
        "web",
        "--repo",
        "https://git.example/x.git",
        answers=(("Type", "service\n"), (r"\(detect, python\)", "\n")),
    )
    assert typed.returncode == 0, typed.shown


def test_a_hosted_component_is_told_where_to_push(server: Recorded, minuet: Command) -> None:
    prepare(server)
    done = minuet("create", "component", "web", "--type", "service")
    assert done.returncode == 0
    assert "git remote add minuet http://127.0.0.1:1/git/default/shop.git && git push minuet main" in done.stderr
    body = next(asked.body for asked in server.asked if asked.method == "POST")
    assert body["repository"]["url"] is None
    assert body["autoDeploy"] is True
