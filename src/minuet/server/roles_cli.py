"""The verbs `launcher`, `server`, `builder`, `agent` and `gateway`: one process, started alone on a host of its own.

Each replaces this process by `python -m minuet <role>`, which loads nothing of
the command line: the roles live long, and the launcher's memory is that of
every shim it forks.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

_STARTABLE = ("server", "builder", "agent")


def _settings_option(command: Any) -> Any:
    path = click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=True)
    return click.option("--settings", type=path, required=True, help="TOML file with the settings of the process.")(
        command
    )


def _become(role: str, settings: Path, *more: str) -> None:
    sys.stdout.flush()
    arguments = [sys.executable, "-m", "minuet", role, "--settings", str(settings), *more]
    os.execv(sys.executable, arguments)  # noqa: S606 - no shell is wanted


@click.command()
@_settings_option
@click.option(
    "--start",
    "roles",
    multiple=True,
    type=click.Choice(_STARTABLE),
    help="Role to start, under a uid of its own and with <data>/<role>/settings.toml (repeatable).",
)
def launcher(settings: Path, roles: tuple[str, ...]) -> None:
    """Run the launcher, the one process that keeps root, and by it the roles of this host.

    It goes on until `minuet down` asks it to stop everything; a signal ends it alone. Roles that were started once
    are started again with it.

    \b
    Example:
      minuet launcher --settings /var/lib/minuet/launcher/settings.toml --start builder
    """
    _become("launcher", settings, *(("--start", ",".join(roles)) if roles else ()))


def _role(name: str, does: str) -> click.Command:
    """The command of a role that needs nothing but its settings."""

    def run(settings: Path) -> None:
        _become(name, settings)

    example = f"minuet {name} --settings /var/lib/minuet/{name}/settings.toml"
    return click.command(name, help=f"{does}\n\n\b\nExample:\n  {example}")(_settings_option(run))


server = _role("server", "Run the control plane: API, controllers, database.")
builder = _role("builder", "Run a builder; it asks the launcher of its host for sandboxes.")
agent = _role("agent", "Run a data plane's agent; it asks the launcher of its host for instances.")
gateway = _role("gateway", "Run a gateway: Envoy with the snapshot that the agent writes.")
