"""Signing in, and choosing between servers."""

from __future__ import annotations

import sys

import click

from minuet.cli import screen
from minuet.client import contexts
from minuet.kernel.errors import invalid_field


@click.command()
@click.option("--server", required=True, help="Address of the server, such as https://minuet.example.com:8400.")
@click.option("--with-token", is_flag=True, help="Read the token from standard input.")
@click.option("--fingerprint", help="SHA-256 of the server's certificate, to pin it.")
@click.option("--name", default="default", show_default=True, help="Name of the context.")
def login(server: str, with_token: bool, fingerprint: str | None, name: str) -> None:
    """Sign in to a server with a token and make it the current one.

    \b
    Example:
      minuet login --server https://minuet.example.com:8400 --with-token < token.txt
    """
    from minuet.client.api import Api

    if not server.startswith(("http://", "https://")):
        raise invalid_field("server", "must start with http:// or https://", given=server)
    token = sys.stdin.readline().strip() if with_token else click.prompt("Token", hide_input=True, err=True)
    found = Api(contexts.Context(server, token, fingerprint=fingerprint)).get("/me")
    contexts.save(name, contexts.Context(server, token, found["organization"] or "default", fingerprint))
    screen.say(f"Signed in to {server} as {found['tokenName']} of {found['organization']}.")


@click.command()
@click.option("--name", help="Name of the context; the current one if not given.")
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
def list_() -> None:
    """List contexts; a star marks the current one."""
    chosen, found = contexts.load()
    rows = [("*" if name == chosen else "", name, item.server, item.organization) for name, item in found.items()]
    screen.table(rows, ("", "name", "server", "organization"))


@context.command("use")
@click.argument("name")
def use(name: str) -> None:
    """Make a context the current one."""
    contexts.use(name)
    screen.say(f"Now using {name}.")


@context.command("show")
def show() -> None:
    """Show the context in force, without its token."""
    chosen = contexts.current()
    screen.fields([("Server", chosen.server), ("Organization", chosen.organization), ("Project", chosen.project)])
