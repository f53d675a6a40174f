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


@click.command()
@_settings_option
def server(settings: Path) -> None:
    """Run the control plane: API, controllers, database.

    \b
    Example:
      minuet server --settings /var/lib/minuet/server/settings.toml
    """
    _become("server", settings)


@click.command()
@_settings_option
def builder(settings: Path) -> None:
    """Run a builder; it asks the launcher of its host for sandboxes.

    \b
    Example:
      minuet builder --settings /var/lib/minuet/builder/settings.toml
    """
    _become("builder", settings)


@click.command()
@_settings_option
def agent(settings: Path) -> None:
    """Run a data plane's agent; it asks the launcher of its host for instances.

    \b
    Example:
      minuet agent --settings /var/lib/minuet/agent/settings.toml
    """
    _become("agent", settings)


@click.command()
@_settings_option
def gateway(settings: Path) -> None:
    """Run a gateway: Envoy with the snapshot that the agent writes.

    \b
    Example:
      minuet gateway --settings /var/lib/minuet/gateway/settings.toml
    """
    _become("gateway", settings)
