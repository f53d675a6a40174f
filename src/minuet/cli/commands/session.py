"""Signing in, and choosing between servers."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from minuet.cli import names, nouns, place, screen
from minuet.client import contexts
from minuet.kernel.errors import MinuetError, invalid_field


@click.command()
@click.option("--server", required=True, help="Address of the server, such as https://minuet.example.com:8400.")
@click.option("--with-token", is_flag=True, help="Read the token from standard input.")
@click.option("--fingerprint", help="SHA-256 of the server's certificate, to pin it.")
@click.option("--ca-file", type=click.Path(exists=True, dir_okay=False), help="Certificate of an authority to trust.")
@click.option("--project", help="Project that is meant when none is named.")
@click.option("--name", default="default", show_default=True, help="Name of the context.")
def login(
    server: str, with_token: bool, fingerprint: str | None, ca_file: str | None, project: str | None, name: str
) -> None:
    """Sign in to a server with a token and make it the current one.

    \b
    Examples:
      minuet login --server https://minuet.example.com:8400 --with-token < token.txt
      minuet login --server https://10.0.0.5:8400 --with-token --fingerprint 3f...9c < token.txt
    """
    from minuet.client import trust
    from minuet.client.api import Api

    address = contexts.check_server(server)
    asked = contexts.Context(
        address,
        _token(with_token=with_token),
        fingerprint=trust.check_fingerprint(fingerprint) if fingerprint else None,
        ca_file=str(Path(ca_file).absolute()) if ca_file else None,
        project=project,
    )
    found = Api(asked).get("/me")
    made = replace(asked, organization=found["organization"] or "default")
    known = contexts.load()[1].get(name)
    if project is None and known is not None and (known.server, known.organization) == (made.server, made.organization):
        made = replace(made, project=known.project)
    contexts.save(name, made)
    screen.say(f"Signed in to {address} as {found['tokenName']} of {found['organization']}.")
    if address.startswith("http://") and not _is_loopback(address):
        screen.say("Note: the connection is not encrypted; whoever listens can read the token.")


def _token(*, with_token: bool) -> str:
    if not with_token and not screen.is_terminal():
        raise invalid_field("token", "nobody can be asked here", hint="give it on standard input with --with-token")
    given: str = sys.stdin.readline() if with_token else screen.ask("Token", hidden=True)
    if not given.strip():
        raise invalid_field("token", "is empty")
    return given.strip()


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.") or host.endswith(".localhost")


def _complete_context(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    try:
        return [name for name in contexts.load()[1] if name.startswith(incomplete)]
    except MinuetError:
        return []


@click.command()
@click.option("--name", shell_complete=_complete_context, help="Name of the context; the current one if not given.")
def logout(name: str | None) -> None:
    """Forget a server and its token.

    \b
    Example:
      minuet logout
    """
    chosen = name or contexts.load()[0]
    if chosen is None:
        raise invalid_field("name", "there is no context to forget")
    contexts.remove(chosen)
    screen.say(f"Forgot {chosen}.")


@click.group()
def context() -> None:
    """List and choose servers.

    \b
    Example:
      minuet context list
    """


@context.command("list")
@place.output_option
def list_(output: str) -> None:
    """List contexts; a star marks the current one.

    \b
    Example:
      minuet context list
    """
    chosen, found = contexts.load()
    items = [_shown(name, item) | {"current": name == chosen} for name, item in found.items()]
    nouns.show_list(
        items,
        output,
        ("", "name", "server", "organization", "project"),
        lambda item: (
            "*" if item["current"] else "",
            item["name"],
            item["server"],
            item["organization"],
            item["project"],
        ),
    )


@context.command("use")
@click.argument("name", required=False, shell_complete=_complete_context)
@click.option("--project", shell_complete=names.projects, help="Project that is meant when none is named; empty: none.")
def use(name: str | None, project: str | None) -> None:
    """Make a context the current one, or choose its project; without a name that of the current one.

    \b
    Examples:
      minuet context use production
      minuet context use --project shop
    """
    chosen = name or contexts.load()[0]
    if chosen is None or (name is None and project is None):
        raise invalid_field("name", "is required", hint="`minuet context list` shows what there is")
    contexts.use(chosen)
    if project is not None:
        contexts.save(chosen, replace(contexts.load()[1][chosen], project=project or None))
    screen.say(f"Now using {chosen}{f', project {project}' if project else ''}.")


@context.command("show")
@place.output_option
def show(output: str) -> None:
    """Show the context in force, without its token.

    \b
    Example:
      minuet context show -o json
    """
    item = _shown(contexts.load()[0] or "", contexts.current())
    if output != "table":
        nouns.show_one(item, output)
        return
    titles = {"caFile": "Authority"}
    screen.fields((titles.get(key, key.capitalize()), value) for key, value in item.items())


def _shown(name: str, item: contexts.Context) -> dict[str, Any]:
    """A context without its token."""
    return {
        "name": name,
        "server": item.server,
        "organization": item.organization,
        "project": item.project,
        "fingerprint": item.fingerprint,
        "caFile": item.ca_file,
    }
