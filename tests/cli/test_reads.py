"""Every noun can be listed, described and got, in every form; the table of verbs decides what is tested."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import yaml

from minuet.cli import main
from tests.given.command import Command
from tests.given.shops import Shop

Words = Callable[[Shop], tuple[str, ...]]


def below(shop: Shop) -> tuple[str, ...]:
    return ("--project", shop.project, "--component", shop.component)


LISTED: dict[str, Words] = {
    "builds": below,
    "releases": below,
    "deployments": below,
    "endpoints": below,
    "instances": below,
    "config": lambda shop: (shop.component, "--project", shop.project),
}
"""What a list needs besides its noun; most need nothing."""

NAMED: dict[str, Words] = {
    "organization": lambda shop: (shop.tenant.name,),
    "project": lambda shop: (shop.project,),
    "component": lambda shop: (shop.component, "--project", shop.project),
    "build": lambda shop: ("web-1", "--project", shop.project),
    "release": lambda shop: (shop.environment()["current"]["release"], *below(shop)),
    "deployment": lambda shop: (shop.environment()["current"]["id"], *below(shop)),
    "environment": lambda shop: ("Production",),
    "pipeline": lambda shop: ("default",),
    "config": lambda shop: (shop.component, "A", "--project", shop.project),
    "credential": lambda shop: ("forge",),
    "token": lambda shop: ("owner",),
    "data-plane": lambda shop: ("default",),
    "buildpack": lambda shop: ("python",),
    "builder": lambda shop: (shop.tenant.client.get(f"{shop.tenant.path}/builders").json()["items"][0]["name"],),
    "endpoint": lambda shop: ("http", *below(shop)),
    "instance": lambda shop: (shop.environment()["instances"][0]["id"], *below(shop)),
}
"""What describes one of each noun."""

READS = [
    (verb, main._PLURALS[noun] if verb == "list" else noun)
    for verb in ("list", "describe", "get")
    for noun in main._READ
]


def read(deployed: tuple[Command, Shop], verb: str, noun: str, *more: str) -> str:
    command, shop = deployed
    words = LISTED.get(noun, lambda _shop: ()) if verb == "list" else NAMED[noun]
    done = command.here(verb, noun, *words(shop), *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("verb", "noun"), READS, ids=lambda word: word)
def test_every_read_has_every_form(deployed: tuple[Command, Shop], verb: str, noun: str) -> None:
    shown = json.loads(read(deployed, verb, noun, "-o", "json"))
    assert yaml.safe_load(read(deployed, verb, noun, "-o", "yaml")).keys() == shown.keys()
    names = read(deployed, verb, noun, "-o", "name").split()
    page = read(deployed, verb, noun)
    assert names
    assert names[0] in page
    assert set("{}[]'").isdisjoint(page.partition("\n")[0]), "a page is for people"


def test_the_table_of_verbs_names_a_command_for_each_of_its_words() -> None:
    for verb, (_, nouns) in main._VERBS.items():
        group = main._GROUPS[verb]
        for noun in nouns:
            word = main._PLURALS[noun] if verb == "list" else noun
            found = group.get_command(None, word)  # type: ignore[arg-type]
            assert found is not None, (verb, word)
            assert found.name == word


def test_a_list_of_tokens_shows_role_end_and_last_use(deployed: tuple[Command, Shop]) -> None:
    head, first, *_ = read(deployed, "list", "tokens").splitlines()
    assert head.split("  ") != []
    for title in ("ROLE", "EXPIRES", "LAST USED"):
        assert title in head
    assert "owner" in first


def test_what_is_not_there_is_named_with_what_is(deployed: tuple[Command, Shop]) -> None:
    command, shop = deployed
    for noun, known in (("endpoint", "http"), ("instance", "i"), ("buildpack", "python")):
        words = () if noun == "buildpack" else below(shop)
        done = command.here("get", noun, "pythn" if noun == "buildpack" else "nothing", *words)
        assert done.returncode == 3
        assert known in done.stderr
