"""`minuet up`, `down` and `doctor`: the verbs that act on this machine, not on the API.

They live with the supervisor and not in `cli/`, because they start processes
and read the data directory; the command line finds them by name.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from minuet.cli import screen
from minuet.launcher.isolation import CLASSES
from minuet.server import detached, embedded, first_app, foreground, installation, launching, lock
from minuet.server import doctor as examination

_NOT_FINE = 6


def _data_option(command: Any) -> Any:
    return click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        default=lambda: Path(os.environ.get("MINUET_DATA", ".minuet")),
        show_default=".minuet, or $MINUET_DATA",
        help="Directory that holds everything this installation knows.",
    )(command)


@click.command()
@_data_option
@click.option("--detach", is_flag=True, help="Return when the platform answers and leave it running.")
@click.option("--sample", is_flag=True, help="Deploy a first application from a Git repository.")
@click.option("--api-port", type=int, help="Port of the API. [default: 8400]")
@click.option("--builder-port", type=int, help="Port of the builder. [default: 8401]")
@click.option("--gateway-port", type=int, help="Port applications are reached at. [default: 8480]")
@click.option("--listen", help="Address of API and builder; beyond loopback they speak TLS. [default: 127.0.0.1]")
@click.option("--gateway-address", help="Address applications are reached at. [default: 127.0.0.1]")
@click.option("--gateway-url", help="How people reach applications, if not at that address and port.")
@click.option("--envoy", help="Program of the gateway; the installed wheel's, else that of the PATH, if not given.")
@click.option("--domain", help="What host names of applications end in; at the first start only. [default: localhost]")
@click.option(
    "--isolation",
    type=click.Choice(CLASSES),
    help="Class of isolation; chosen by a probe if not given.",
)
@click.option("--uid-base", type=int, help="First uid that roles and workloads get as root. [default: 300000]")
@click.option("--network-pool", help="Private network of the instances, such as 100.64.16.0/20.")
@click.option("--database", help="postgresql://... instead of the SQLite file.")
@click.option(
    "--allow-local-repositories/--refuse-local-repositories",
    default=None,
    help="Whether file:// repositories may be built.",
)
def up(data: Path, detach: bool, sample: bool, **choices: Any) -> None:
    """Start the whole platform on this machine.

    What is chosen is remembered in the data directory. A platform that runs already under another `up` is not
    started again: that ends with code 5. A start that fails leaves what ran before running.

    \b
    Examples:
      minuet up
      minuet up --data /var/lib/minuet --detach
      minuet up --listen 10.0.0.1 --gateway-address 10.0.0.1 --domain apps.example.com
    """
    data = data.absolute()
    embedded.enough_disk(data)
    if detach:
        _start_detached(data, choices, sample=sample)
        return
    with lock.sole_supervisor(data):
        chosen = installation.load(data, choices)
        asyncio.run(foreground.serve(data, chosen, sample=sample, talk=screen.say))


def _start_detached(data: Path, choices: dict[str, Any], *, sample: bool) -> None:
    installation.load(data, choices)
    if code := detached.start(data, detached.arguments_of(choices), screen.say):
        sys.exit(code)
    if sample:
        first_app.FirstApplication(data, installation.load(data, {}), screen.say, held=False).deploy_and_tell()


@click.command()
@_data_option
@click.option("--now", is_flag=True, help="Kill every process at once instead of asking them to end.")
def down(data: Path, now: bool) -> None:
    """Stop the platform on this machine: every process, applications included.

    \b
    Example:
      minuet down --data /var/lib/minuet
    """
    launching.end_installation(data.absolute(), screen.say, now=now)


@click.command()
@_data_option
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text", help="Form of the answer.")
def doctor(data: Path, output: str) -> None:
    """Check this machine: what is missing, and which class of isolation is in force.

    \b
    Example:
      minuet doctor
    """
    findings = examination.examine(data.absolute())
    if output == "text":
        for line in examination.as_text(findings).splitlines():
            screen.data(line)
    else:
        screen.document([asdict(finding) for finding in findings], output)
    sys.exit(0 if all(finding.fine for finding in findings) else _NOT_FINE)
