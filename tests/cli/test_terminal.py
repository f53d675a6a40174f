"""What a terminal gets that a pipe does not: lists laid out to its width, colours, completion by name."""

from __future__ import annotations

import time

import pytest

from tests.given.command import Command
from tests.given.recorded import Recorded, document
from tests.given.shops import Shop

ORGANIZATION = "/api/v1/organizations/default"


def prepare(server: Recorded, minuet: Command, message: str = "Ready to ship, but the tests Failed") -> None:
    minuet.environment["COLUMNS"] = "200"
    build = {
        "id": "web-1",
        "status": "Failed",
        "commit": "c" * 40,
        "commitMessage": message,
        "reason": "CompileFailed",
        "createdAt": "2026-01-01T00:00:00Z",
    }
    server.on(f"GET {ORGANIZATION}/projects/shop/components/web/builds", document({"items": [build]}))


LISTING = ("list", "builds", "--project", "shop", "--component", "web")


def test_a_list_on_a_terminal_has_coloured_states_and_the_same_words(server: Recorded, minuet: Command) -> None:
    prepare(server, minuet)
    shown = minuet.on_terminal(*LISTING).shown
    assert "\x1b[31mFailed\x1b[0m" in shown
    assert "tests Failed" in shown, "a word that tells no state is just a word"
    assert "web-1" in shown


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_a_list_has_no_colours_where_none_are_wanted(
    variables: dict[str, str], server: Recorded, minuet: Command
) -> None:
    prepare(server, minuet)
    minuet.environment |= variables
    typed = minuet.on_terminal(*LISTING)
    assert "web-1" in typed.shown
    assert "\x1b" not in typed.shown


def test_off_a_terminal_a_list_is_plain_and_rich_is_not_loaded(server: Recorded, minuet: Command) -> None:
    prepare(server, minuet)
    minuet.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    done = minuet(*LISTING)
    assert "\x1b" not in done.stdout
    assert done.stdout.startswith("ID     STATUS")
    assert "rich" not in done.stderr


def test_a_list_is_as_wide_as_the_terminal_and_loses_nothing(server: Recorded, minuet: Command) -> None:
    prepare(server, minuet, "word " * 50)
    minuet.environment |= {"COLUMNS": "70", "NO_COLOR": "1"}
    lines = minuet.on_terminal(*LISTING).shown.splitlines()
    assert max(len(line) for line in lines) <= 70
    assert " ".join(lines).count("word") == 50


def test_hostile_text_in_a_list_does_not_reach_the_terminal(server: Recorded, minuet: Command) -> None:
    prepare(server, minuet, "\x1b[2J\x1b]0;owned\x07[bold red]not markup[/]\r\nforged :smile:")
    minuet.environment["NO_COLOR"] = "1"
    shown = minuet.on_terminal(*LISTING).shown
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[bold red]not markup[/]" in shown


def completed(command: Command, words: str) -> list[str]:
    variables = {"_MINUET_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    done = Command(command.home, command.server, command.token, command.environment | variables)()
    assert done.stderr == ""
    return [line.split(",")[1] for line in done.stdout.split()]


def test_the_shell_completes_names_from_the_server(deployed: tuple[Command, Shop]) -> None:
    command, shop = deployed
    assert completed(command, f"minuet describe component w --project {shop.project[:5]}") == [shop.project]
    assert completed(command, "minuet describe component we") == ["web"]
    assert completed(command, "minuet create deployment web --env prod") == ["production"]
    assert completed(command, "minuet describe build web-") == ["web-1"]
    assert completed(command, f"minuet create deployment web --project {shop.project} --build-id w") == ["web-1"]
    assert completed(command, "minuet set credential fo") == ["forge"]


def test_completion_is_silent_and_quick_when_the_server_is_away(minuet: Command, server: Recorded) -> None:
    assert completed(minuet, "minuet describe component we") == []
    nowhere = Command(minuet.home)
    assert completed(nowhere, "minuet describe component we") == []
    # A documentation address (RFC 5737) never answers; the patience of a completion ends the wait.
    minuet.server = "http://192.0.2.1:8400"
    began = time.monotonic()
    assert completed(minuet, "minuet describe component we") == []
    assert time.monotonic() - began < 15
