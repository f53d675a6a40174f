"""Every command that Minuet tells a person to type is one that its command line understands."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from minuet.cli.main import cli
from minuet.kernel.reasons import REASONS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src" / "minuet").rglob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
QUOTED = re.compile(r"`(minuet [^`]*)`")


def understood(line: str, *, whole: bool) -> str | None:
    """Why a line is no command, None if it is one; unless it is a `whole` one, arguments may be missing."""
    words = shlex.split(line.partition(" < ")[0].partition(" > ")[0].partition(" | ")[0], comments=True)[1:]
    group: click.Command = cli
    try:
        context = cli.make_context("minuet", words)
        words = [*context._protected_args, *context.args]
        while isinstance(group, click.Group):
            if not words:
                return "a verb without a noun" if whole else None
            name, found, words = group.resolve_command(context, words)
            assert found is not None
            group = found
            if whole or isinstance(group, click.Group):
                context = group.make_context(name, list(words), parent=context)
                words = [*context._protected_args, *context.args]
    except click.exceptions.Exit:
        return None
    except click.UsageError as error:
        # A file that a page has the reader write is not on this machine.
        is_file = isinstance(error, click.BadParameter) and error.param and isinstance(error.param.type, click.Path)
        return None if is_file else error.format_message()
    return None


def texts(source: Path) -> Iterator[tuple[int, str, bool]]:
    """Every text of a module, a value in it standing as `x`, and whether it is a docstring."""
    tree = ast.parse(source.read_text())
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(_part(part) for part in node.values), False
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.lineno, node.value, id(node) in documents


def _part(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else "x"


def built(source: Path) -> Iterator[tuple[int, list[str]]]:
    """The words of every `command_line(...)` that names its verb, a value in it standing as `x`."""
    for node in ast.walk(ast.parse(source.read_text())):
        is_call = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("command_line")
        if is_call and node.args and isinstance(node.args[0], ast.Constant):
            words = [str(word.value) if isinstance(word, ast.Constant) else "x" for word in node.args]
            flags = [f"--{keyword.arg.replace('_', '-')}=x" for keyword in node.keywords if keyword.arg]
            yield node.lineno, [*words, *flags]


def test_every_command_that_a_text_names_is_understood() -> None:
    wrong = [
        f"{source.relative_to(ROOT)}:{number}: `{line}`: {why}"
        for source in SOURCES
        for number, text, is_document in texts(source)
        for line in QUOTED.findall(text)
        if (why := understood(line, whole=not is_document))
    ]
    wrong += [
        f"{source.relative_to(ROOT)}:{number}: {words}: {why}"
        for source in SOURCES
        for number, words in built(source)
        if (why := understood(shlex.join(["minuet", *words]), whole=True))
    ]
    assert wrong == []


def test_commands_in_the_catalogue_are_really_read() -> None:
    assert [step for reason in REASONS.values() for step in QUOTED.findall(reason.next_step)]
    assert understood("minuet get tokens", whole=False) is not None
    assert understood("minuet create build", whole=True) is not None
    assert understood("minuet create build web --project shop", whole=True) is None


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_of_a_page_is_understood(page: Path) -> None:
    text = page.read_text()
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = [line.strip().removeprefix(".venv/bin/") for line in blocks.splitlines()]
    commands = [line for line in lines if line.startswith("minuet ")]
    wrong = [f"{line}: {why}" for line in commands if (why := understood(line, whole=True))]
    wrong += [f"{line}: {why}" for line in QUOTED.findall(text) if (why := understood(line, whole=False))]
    assert wrong == []
