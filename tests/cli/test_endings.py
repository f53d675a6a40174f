"""How commands end: exit codes, one line and a hint, never a traceback."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from minuet.cli import exits
from minuet.kernel import errors
from minuet.kernel.errors import FAMILIES
from tests.given.command import Command
from tests.given.recorded import Answer, Recorded, document, event, problem, stream

PROJECTS = "/api/v1/organizations/default/projects"
FAILURES = {
    "Invalid": (422, 2),
    "NotFound": (404, 3),
    "Unauthenticated": (401, 4),
    "Forbidden": (403, 4),
    "Conflict": (409, 5),
    "NotReady": (409, 6),
    "Unavailable": (503, 7),
    "Exhausted": (429, 8),
    "Internal": (500, 1),
}


def test_every_family_has_a_code_of_its_own_and_is_tried_below() -> None:
    assert {family.__name__ for family in FAMILIES} <= set(FAILURES)
    assert all(exits.exit_code(family("x")) == FAILURES[family.__name__][1] for family in FAMILIES)


@pytest.mark.parametrize("family", FAILURES)
def test_a_refusal_ends_with_the_code_of_its_family(family: str, server: Recorded, minuet: Command) -> None:
    status, code = FAILURES[family]
    violations = [{"field": "name", "message": "is taken", "given": "shop", "allowed": ["a", "b"]}]
    server.on(f"POST {PROJECTS}", problem(status, family, "Special", "it is so", hint="do this", violations=violations))
    done = minuet("create", "project", "shop")
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: it is so",
        "  name: is taken; given: shop; allowed: a, b",
        "  do this",
    ]


def test_nobody_there_is_7_and_tells_how_to_start(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = Command(tmp_path, f"http://127.0.0.1:{unused.getsockname()[1]}")("list", "projects")
    assert done.returncode == 7
    assert "does not answer" in done.stderr
    assert "minuet up" in done.stderr


def test_signed_in_nowhere_is_4(stranger: Command) -> None:
    done = stranger("list", "projects")
    assert done.returncode == 4
    assert "minuet login" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("lst",), "did you mean `list`?"),
        (("list", "project"), "did you mean `projects`?"),
        (("create", "project"), "NAME"),
        (("list", "projects", "--frm"), "--frm"),
        (("scale", "web", "--replicas", "many"), "many"),
        (("create", "component", "web", "--type", "servce"), "did you mean service?"),
        (("create", "component", "web"), "--type"),
        (("set", "config", "web"), "nothing to set"),
        (("logs",), "minuet logs web"),
        (("logs", "web", "--since", "yesterday"), "10m"),
        (("wait", "deployment", "web", "--for", "condition=Helthy"), "condition"),
        (("wait", "deployment", "web", "--timeout", "-1"), "-1"),
        (("describe", "project", ".."), "is not a name"),
    ],
)
def test_wrong_use_is_2_with_one_line_and_what_to_do(
    arguments: tuple[str, ...], told: str, server: Recorded, minuet: Command
) -> None:
    server.on(f"GET {PROJECTS}", document({"items": [{"name": "shop"}]}))
    done = minuet(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert told in done.stderr


def test_a_defect_is_one_line_and_a_file_with_the_traceback(server: Recorded, minuet: Command) -> None:
    server.on(f"GET {PROJECTS}", document({"items": [{"unexpected": True}]}))
    done = minuet("list", "projects")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "KeyError" in done.stderr
    (file,) = minuet.home.glob("minuet-*.txt")
    assert str(file) in done.stderr
    assert "Traceback" in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


def test_an_interruption_is_130(server: Recorded, minuet: Command) -> None:
    logs = f"{PROJECTS}/shop/components/web/environments/development/logs"
    line = event("line", {"time": "t", "instance": "i", "message": "hello"})
    server.on(f"GET {logs}", stream(line, hold=True))
    running = minuet.start("logs", "web", "--project", "shop", "--follow")
    assert running.stdout is not None
    assert running.stdout.readline() == "t i hello\n"
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=20)
    assert running.returncode == 130
    assert said.strip() == "Interrupted."


def test_a_broken_pipe_is_silent(server: Recorded, minuet: Command) -> None:
    many = [{"name": f"project-{n}", "displayName": "x" * 50, "createdAt": None} for n in range(3000)]
    server.on(f"GET {PROJECTS}", document({"items": many}))
    running = minuet.start("list", "projects")
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.readline()
    running.stdout.close()
    assert running.stderr.read() == ""
    assert running.wait(20) == 0
    running.stderr.close()


def test_a_terminal_that_knows_fewer_letters_shows_escapes(server: Recorded, minuet: Command) -> None:
    server.on(f"GET {PROJECTS}", document({"items": [{"name": "\u6728"}]}))
    minuet.environment["PYTHONIOENCODING"] = "iso-8859-1"
    done = minuet("list", "projects", "-o", "name")
    assert (done.returncode, done.stdout) == (0, "\\u6728\n")


def test_deleting_where_nobody_can_be_asked_needs_yes(server: Recorded, minuet: Command) -> None:
    server.on(f"DELETE {PROJECTS}/shop", Answer(202))
    refused = minuet("delete", "project", "shop")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert server.asked == []
    assert minuet("delete", "project", "shop", "--yes").returncode == 0
    assert [asked.method for asked in server.asked] == ["DELETE"]


def test_deleting_on_a_terminal_asks_for_the_name(server: Recorded, minuet: Command) -> None:
    server.on(f"DELETE {PROJECTS}/shop", Answer(202))
    wrong = minuet.on_terminal("delete", "project", "shop", answers=((r"go on", "shopp\n"),))
    assert wrong.returncode == 2
    assert "nothing was deleted" in wrong.shown
    assert server.asked == []
    right = minuet.on_terminal("delete", "project", "shop", answers=((r"go on", "shop\n"),))
    assert right.returncode == 0
    assert [asked.method for asked in server.asked] == ["DELETE"]


def test_an_error_is_red_on_a_terminal_unless_no_color_is_set(stranger: Command) -> None:
    assert "\x1b[31merror: " in stranger.on_terminal("list", "projects").shown
    stranger.environment["NO_COLOR"] = "1"
    assert "\x1b" not in stranger.on_terminal("list", "projects").shown
    assert "\x1b" not in stranger("list", "projects").stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_each_shell_names_the_command(shell: str, stranger: Command) -> None:
    done = stranger("completion", shell)
    assert done.returncode == 0
    assert "_MINUET_COMPLETE" in done.stdout


def test_completion_knows_verbs_and_nouns(stranger: Command) -> None:
    def completed(words: str) -> list[str]:
        stranger.environment |= {"_MINUET_COMPLETE": "bash_complete", "COMP_WORDS": words}
        stranger.environment["COMP_CWORD"] = str(len(words.split(" ")) - 1)
        return [line.split(",")[1] for line in stranger().stdout.splitlines()]

    assert completed("minuet re") == ["redeploy", "resume"]
    assert completed("minuet list comp") == ["components"]
    assert "--project" in completed("minuet list components --p")


def test_bash_accepts_the_completion_script(stranger: Command) -> None:
    script = stranger("completion", "bash").stdout
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_reading_help_loads_no_command_and_no_http_client(stranger: Command) -> None:
    loaded = _modules(stranger, "--help")
    assert not {name for name in loaded if name.startswith(("minuet.cli.commands", "minuet.server", "minuet.client"))}
    assert not loaded & {"httpx2", "rich", "pydantic", "yaml", "asyncio", "ssl", "cryptography"}


def test_a_command_loads_only_its_own_noun(server: Recorded, minuet: Command) -> None:
    server.on("GET /api/v1/organizations/default/components", document({"items": []}))
    loaded = _modules(minuet, "list", "components")
    assert "httpx2" in loaded
    assert {name for name in loaded if name.startswith("minuet.cli.commands.")} == {"minuet.cli.commands.component"}
    assert not loaded & {"rich", "pydantic", "yaml", "fastapi", "sqlalchemy", "minuet.server"}


def _modules(command: Command, *arguments: str) -> set[str]:
    """Which modules are there when the command has ended."""
    script = (
        "import sys; from minuet.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=command.variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stderr.split())


def test_an_error_of_the_server_itself_counts_as_a_defect() -> None:
    assert exits.exit_code(errors.MinuetError("x")) == exits.DEFECT
