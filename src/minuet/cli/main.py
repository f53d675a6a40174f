"""The entry of the command line: what verbs there are, and how every failure ends.

Verbs that act on this machine (`up`, `down`, `doctor`) are found by name in
`minuet.server`, which this room may not import: they start processes.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import click

from minuet import __version__
from minuet.cli.lazy import LazyGroup
from minuet.kernel.errors import MinuetError

_C = "minuet.cli.commands"
_NOUNS = {
    "organization": "organization",
    "project": "project",
    "component": "component",
    "build": "build",
    "release": "release",
    "deployment": "deployment",
    "environment": "environment",
    "pipeline": "pipeline",
    "config": "config",
    "health": "health",
    "credential": "credential",
    "token": "token",
    "data-plane": "data_plane",
    "buildpack": "buildpack",
    "builder": "builder",
    "endpoint": "endpoint",
    "instance": "instance",
}
"""Every noun and its module."""

_PLURALS = {noun: "config" if noun == "config" else f"{noun}s" for noun in _NOUNS}
_READ = tuple(noun for noun in _NOUNS if noun != "health")
"""What can be listed, described and got; a component has one health check, which its own description shows."""

_MADE = (
    "organization",
    "project",
    "component",
    "build",
    "deployment",
    "environment",
    "pipeline",
    "credential",
    "token",
)
_DELETED = ("organization", "project", "component", "deployment", "environment", "pipeline", "credential", "token")
_VERBS: dict[str, tuple[str, tuple[str, ...]]] = {
    "create": ("Make something new.", _MADE),
    "list": ("Show what there is.", _READ),
    "describe": ("Show one thing with its whole story.", _READ),
    "get": ("Print one thing as JSON or YAML.", (*_READ, "health")),
    "delete": ("Remove something; asks first.", _DELETED),
    "set": (
        "Change something, or set configuration.",
        ("config", "health", "project", "component", "environment", "pipeline", "credential"),
    ),
    "unset": ("Remove configuration.", ("config", "health")),
    "wait": ("Wait until something is so.", ("build", "deployment", "component", "project")),
    "cancel": ("End something that runs.", ("build",)),
}
_SINGLE = {
    "logs": (f"{_C}.logs:logs", "Show what an application or a build said."),
    "rollback": (f"{_C}.operations:rollback", "Bring back an earlier release."),
    "redeploy": (f"{_C}.operations:redeploy", "Start the same release afresh."),
    "scale": (f"{_C}.operations:scale", "Change how many instances run."),
    "suspend": (f"{_C}.operations:suspend", "Stop a component in an environment."),
    "resume": (f"{_C}.operations:resume", "Start a suspended component again."),
    "open": (f"{_C}.operations:open_component", "Open a component's address in the browser."),
    "apply": (f"{_C}.manifests:apply", "Make what files describe so."),
    "export": (f"{_C}.manifests:export", "Write what is there as files would describe it."),
    "schema": (f"{_C}.manifests:schema", "Print the JSON Schema of those files."),
    "login": (f"{_C}.session:login", "Sign in to a server with a token."),
    "logout": (f"{_C}.session:logout", "Forget a server and its token."),
    "context": (f"{_C}.session:context", "List and choose servers."),
    "status": (f"{_C}.status:status", "Show whether the platform is well."),
    "up": ("minuet.server.embedded_cli:up", "Start the whole platform on this machine."),
    "down": ("minuet.server.embedded_cli:down", "Stop it."),
    "doctor": ("minuet.server.embedded_cli:doctor", "Check this machine."),
    "launcher": ("minuet.server.roles_cli:launcher", "Run the launcher of a host, and by it other roles."),
    "server": ("minuet.server.roles_cli:server", "Run the control plane alone."),
    "builder": ("minuet.server.roles_cli:builder", "Run a builder alone."),
    "agent": ("minuet.server.roles_cli:agent", "Run a data plane's agent alone."),
    "gateway": ("minuet.server.roles_cli:gateway", "Run a gateway alone."),
    "version": (f"{_C}.version:version", "Show the version of this command."),
    "completion": (f"{_C}.completion:completion", "Print the shell's completion script."),
}


def _verb(name: str, line: str, nouns: tuple[str, ...]) -> LazyGroup:
    words = {noun: _PLURALS[noun] if name == "list" else noun for noun in nouns}
    entries = {
        word: (f"{_C}.{_NOUNS[noun]}:{name}_", f"{name.capitalize()} {_PLURALS[noun].replace('-', ' ')}.")
        for noun, word in words.items()
    }
    return LazyGroup(name, entries=entries, help=line)


_GROUPS = {name: _verb(name, line, nouns) for name, (line, nouns) in _VERBS.items()}
_ENTRIES = {name: (f"minuet.cli.main:{name}_group", line) for name, (line, _) in _VERBS.items()} | _SINGLE


def __getattr__(name: str) -> click.Command:
    group = _GROUPS.get(name.removesuffix("_group"))
    if group is None:
        raise AttributeError(name)
    return group


class _ReaderGone(Exception):
    """Nobody reads what is printed any more; told apart because click would end with 1."""


class _Root(LazyGroup):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGone from error


@click.group(cls=_Root, entries=_ENTRIES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="minuet")
@click.option("--organization", help="Organization to act in; that of the context otherwise.")
def cli(organization: str | None) -> None:
    """Minuet: a Git repository goes in, a running, governed service comes out."""


def main() -> int:
    """Runs the command line and ends the process with a stable exit code."""
    sys.exit(_run())


def _run() -> int:  # noqa: PLR0911 - one answer for each way to end
    from minuet.cli import exits, screen

    try:
        _encodable()
        code = cli.main(prog_name="minuet", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.exceptions.NoArgsIsHelpError as usage:
        usage.show()
        return exits.USAGE
    except click.ClickException as usage:
        screen.error(_as_invalid(usage))
        return exits.USAGE
    except (click.Abort, KeyboardInterrupt):
        screen.say("Interrupted.")
        return exits.INTERRUPTED
    except MinuetError as error:
        screen.error(error)
        return exits.exit_code(error)
    except _ReaderGone:
        _stop_writing()
        return 0
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except Exception as defect:  # noqa: BLE001 - the last resort: a person never sees a traceback
        return _report(defect)


def _encodable() -> None:
    """A terminal that knows fewer letters shows escapes instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _stop_writing() -> None:
    """The reader has gone: nothing more can be said, not even at the interpreter's end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())


def _as_invalid(usage: click.ClickException) -> MinuetError:
    from minuet.kernel.errors import Invalid

    context = getattr(usage, "ctx", None)
    hint = f"`{context.command_path} --help` shows how" if context else None
    return Invalid(usage.format_message(), code="Usage", hint=hint)


def _report(defect: Exception) -> int:
    """Keeps the traceback for whoever mends it; the person sees one line and where it is."""
    import tempfile
    import traceback

    from minuet import __version__
    from minuet.cli import exits, screen

    with tempfile.NamedTemporaryFile("w", prefix="minuet-", suffix=".txt", delete=False) as file:
        file.write(f"minuet {__version__}, python {sys.version}\n")
        traceback.print_exception(defect, file=file)
    screen.say(f"error: this is a defect of Minuet ({type(defect).__name__}: {defect})")
    screen.say(f"  please report it with {file.name}")
    return exits.DEFECT


if __name__ == "__main__":
    main()
