"""Groups that load a command's module only when it is asked for, so that `minuet --help` stays quick."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from minuet.kernel.names import nearest


class LazyGroup(click.Group):
    """`entries` maps a command's name to where it is (`module:attribute`) and its one line of help."""

    def __init__(self, *arguments: Any, entries: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        entry = self._entries.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry[0].partition(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self._entries:
            close = nearest(args[0], self._entries)
            hint = f"; did you mean `{close}`?" if close else ""
            ctx.fail(f"there is no command `{args[0]}`{hint}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names and help from the table, without loading a single command."""
        found = [
            CompletionItem(name, help=line) for name, (_, line) in self._entries.items() if name.startswith(incomplete)
        ]
        return found or click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._entries.items()])
