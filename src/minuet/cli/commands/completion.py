"""Completion for shells."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from minuet.cli import screen


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Example:
      eval "$(minuet completion bash)"
    """
    from minuet.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - the choices are click's own
    screen.block(found(cli, {}, "minuet", "_MINUET_COMPLETE").source())
