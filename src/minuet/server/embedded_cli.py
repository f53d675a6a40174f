"""`minuet up`, `down` and `doctor`: the verbs that act on this machine, not on the API.

They live with the supervisor and not in `cli/`, because they start processes
and read the data directory; the command line finds them by name.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from minuet.cli import screen
from minuet.kernel.errors import MinuetError, Unavailable
from minuet.server import doctor as examination
from minuet.server import embedded, installation

_DETACH_SECONDS = 90.0


def _data_option(command: Any) -> Any:
    return click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        default=lambda: Path(os.environ.get("MINUET_DATA", ".minuet")),
        show_default=".minuet, or $MINUET_DATA",
        help="Directory that holds everything this installation knows.",
    )(command)


def _talk(text: str) -> None:
    """Tells a person; lines of a push, a log or a server are data here as everywhere."""
    for line in text.split("\n"):
        screen.say(line)


@click.command()
@_data_option
@click.option("--detach", is_flag=True, help="Return when the platform answers and leave it running.")
@click.option("--sample", is_flag=True, help="Deploy a first application from a Git repository.")
@click.option("--api-port", type=int, help="Port of the API on loopback. [default: 8400]")
@click.option("--builder-port", type=int, help="Port of the builder on loopback. [default: 8401]")
@click.option("--gateway-port", type=int, help="Port applications are reached at. [default: 8480]")
@click.option(
    "--isolation",
    type=click.Choice(["sandbox", "host-network", "landlock", "none"]),
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

    \b
    Examples:
      minuet up
      minuet up --data /var/lib/minuet --detach
    """
    data = data.absolute()
    data.mkdir(parents=True, exist_ok=True)
    chosen = installation.load(data, choices)
    installation.save(data, chosen)
    embedded.enough_disk(data)
    if detach:
        _detach(data)
        if sample:
            _first_app(data, chosen)
        return
    with embedded.sole_supervisor(data):
        asyncio.run(_foreground(data, chosen, sample))


async def _foreground(data: Path, chosen: installation.Installation, sample: bool) -> None:
    supervisor = embedded.Supervisor(data, chosen, _talk)
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    began = time.monotonic()
    starting = asyncio.create_task(supervisor.start())
    stopping = asyncio.create_task(asked.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            _greet(data, chosen, time.monotonic() - began)
            await _serve(supervisor, data, chosen, sample, stopping)
    finally:
        starting.cancel()
        _talk("Stopping ...")
        await supervisor.stop()
        _talk("Stopped.")


async def _serve(
    supervisor: embedded.Supervisor,
    data: Path,
    chosen: installation.Installation,
    sample: bool,
    stopping: asyncio.Task[Any],
) -> None:
    watching = asyncio.create_task(supervisor.watch())
    if sample:
        first = asyncio.create_task(asyncio.to_thread(_first_app, data, chosen))
        await asyncio.wait({first, stopping}, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
    watching.cancel()


def _greet(data: Path, chosen: installation.Installation, seconds: float) -> None:
    embedded.save_context(data, chosen)
    _talk(f"Minuet is up ({seconds:.1f} s). API and its documentation: http://127.0.0.1:{chosen.api_port}/docs")


def _first_app(data: Path, chosen: installation.Installation) -> None:
    from minuet.server import first_app

    try:
        first_app.deploy(data, chosen, _talk)
    except MinuetError as error:
        _talk(f"The first application was not deployed: {error.message}")
        if error.hint:
            _talk(f"  {error.hint}")


def _detach(data: Path) -> None:
    """Starts the same command in a session of its own and waits until it answers."""
    log = data / "supervisor.log"
    command = [sys.executable, "-m", "minuet.cli.main", "up", "--data", str(data)]
    with log.open("ab") as file:
        position = file.tell()
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, close_fds=True
        )
    deadline = time.monotonic() + _DETACH_SECONDS
    while time.monotonic() < deadline:
        text = log.read_bytes()[position:].decode(errors="replace")
        if "Minuet is up" in text:
            _talk(text.strip())
            return
        if child.poll() is not None:
            raise Unavailable(f"the platform did not start:\n{text.strip()}", hint=f"its log is {log}")
        time.sleep(0.05)
    raise Unavailable("the platform did not answer in time", hint=f"its log is {log}")


@click.command()
@_data_option
def down(data: Path) -> None:
    """Stop the platform on this machine: every process, applications included.

    \b
    Example:
      minuet down --data /var/lib/minuet
    """
    embedded.stop_everything(data.absolute(), _talk)


@click.command()
@_data_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form of the answer.")
def doctor(data: Path, output: str) -> None:
    """Check this machine: what is missing, and which class of isolation is in force.

    \b
    Example:
      minuet doctor
    """
    findings = examination.examine(data.absolute())
    if output == "json":
        screen.block(examination.as_json(findings))
    else:
        for line in examination.as_text(findings).splitlines():
            screen.data(line)
    sys.exit(0 if all(finding.fine for finding in findings) else 6)
