"""Writes the reference pages that follow from the code: commands, reasons, settings, exit codes.

`make reference` runs it; a test fails when a page is not what it would write.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from minuet.agent.settings import AgentSettings
from minuet.builders.settings import BuilderSettings
from minuet.cli import exits, manifest
from minuet.cli.main import cli
from minuet.gateway.settings import GatewaySettings
from minuet.infra.settings import Settings
from minuet.kernel.errors import FAMILIES
from minuet.kernel.reasons import REASONS
from minuet.launcher import settings as launcher
from minuet.server.settings import ServerSettings

PAGES = Path(__file__).resolve().parents[1] / "docs" / "reference"


def pages() -> dict[str, str]:
    """Every generated page by its file's name."""
    return {
        "cli.md": _commands(),
        "reasons.md": _reasons(),
        "settings.md": _settings(),
        "exit-codes.md": _exit_codes(),
        "manifest.schema.json": json.dumps(manifest.schema(), indent=2) + "\n",
    }


def main() -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (PAGES / name).write_text(text)


def _commands() -> str:
    lines = ["# Commands", "", "What stands on standard output is data; talk goes to standard error.", ""]
    for path, command in _walk(cli, ("minuet",)):
        lines += [f"## `{' '.join(path)}`", "", *_help(command), ""]
    return "\n".join(lines).rstrip() + "\n"


def _walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from _walk(found, (*path, name))
    else:
        yield path, command


def _help(command: click.Command) -> list[str]:
    text = (command.help or "").replace("\b\n", "")
    said, _, example = text.partition("Example")
    lines = [said.strip()]
    if example:
        shown = [line.strip() for line in example.lstrip("s").lstrip(":").splitlines() if line.strip()]
        lines += ["", "```sh", *shown, "```"]
    options = [
        parameter for parameter in command.params if isinstance(parameter, click.Option) and not parameter.hidden
    ]
    if options:
        lines += ["", "| option | meaning |", "|---|---|"]
        lines += [f"| {_spelling(option)} | {option.help or ''} |" for option in options]
    return lines


def _spelling(option: click.Option) -> str:
    return ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))


def _reasons() -> str:
    lines = [
        "# Reasons",
        "",
        "Every condition carries one of these reasons.",
        "",
        "| reason | meaning | next step |",
        "|---|---|---|",
    ]
    lines += [f"| `{name}` | {reason.meaning} | {reason.next_step} |" for name, reason in REASONS.items()]
    return "\n".join(lines) + "\n"


def _settings() -> str:
    lines = ["# Settings", "", "One TOML file for each process; an unknown key is refused.", ""]
    groups: tuple[tuple[str, type[Settings]], ...] = (
        ("server", ServerSettings),
        ("builder", BuilderSettings),
        ("agent", AgentSettings),
    )
    for role, group in groups:
        lines += [f"## {role}", "", "| key | default | unit | reason |", "|---|---|---|---|", *_fields(group, ""), ""]
    for role, small in (("launcher", launcher.Settings), ("gateway", GatewaySettings)):
        lines += [f"## {role}", "", "| key | default | unit | reason |", "|---|---|---|---|"]
        for field in dataclasses.fields(small):
            default = "required" if field.default is dataclasses.MISSING else f"`{field.default}`"
            lines.append(f"| `{field.name}` | {default} | {field.metadata['unit']} | {field.metadata['reason']} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _fields(group: type[Settings], prefix: str) -> Iterator[str]:
    for name, field in group.model_fields.items():
        inner: Any = field.annotation
        if isinstance(inner, type) and issubclass(inner, Settings):
            yield from _fields(inner, f"{prefix}{name}.")
            continue
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        default = "required" if field.is_required() else f"`{field.default}`"
        yield f"| `{prefix}{name}` | {default} | {extra.get('unit', '')} | {field.description or ''} |"


def _exit_codes() -> str:
    lines = [
        "# Exit codes",
        "",
        "They never change.",
        "",
        "| code | family |",
        "|---|---|",
        "| 0 | it worked |",
        "| 1 | a defect of Minuet |",
    ]
    lines += [
        f"| {exits.exit_code(family(''))} | {family.__name__}: {(family.__doc__ or '').strip()} |"
        for family in FAMILIES
    ]
    return "\n".join([*lines, "| 130 | interrupted |"]) + "\n"


if __name__ == "__main__":
    main()
