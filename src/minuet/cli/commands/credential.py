"""Credentials for private repositories."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from minuet.cli import config_sources, names, nouns, place, screen
from minuet.kernel.errors import invalid_field

MAX_TOKEN = 4096
"""Longest token that is read, in characters; no forge gives a longer one."""

_name_argument = click.argument("name", shell_complete=names.credentials)


def _value_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where the value comes from: asked for, standard input, or a file; never the command line, which others can see."""
    command = click.option(
        "--deploy-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File with a private key."
    )(command)
    return click.option(
        "--token-stdin", "--token", "token_stdin", is_flag=True, help="Take a token: asked for, or from standard input."
    )(command)


def _value(*, token_stdin: bool, deploy_key: Path | None) -> dict[str, str]:
    """The part of a body that holds the secret."""
    if deploy_key is not None:
        if token_stdin:
            raise invalid_field("token", "and a deploy key cannot be given together")
        return {"deployKey": config_sources.read(deploy_key)}
    if screen.is_terminal():
        return {"token": screen.ask("Token", hidden=True)}
    if not token_stdin:
        raise invalid_field("token", "is required", hint="give it on standard input with --token-stdin")
    return {"token": sys.stdin.readline(MAX_TOKEN).strip()}


def _find(name: str) -> dict[str, Any]:
    server = place.api()
    return server.get(server.organization("credentials", name))


@click.command("credential")
@click.argument("name")
@click.option("--username", default="git", show_default=True, help="User name that goes with a token.")
@_value_options
def create_(name: str, username: str, token_stdin: bool, deploy_key: Path | None) -> None:
    """Create a credential for private repositories; its value is never shown again.

    \b
    Examples:
      minuet create credential forge --username me --token-stdin < token.txt
      minuet create credential forge --deploy-key ~/.ssh/deploy
    """
    server = place.api()
    value = _value(token_stdin=token_stdin, deploy_key=deploy_key)
    kind = {"kind": "deploy-key"} if deploy_key else {"kind": "token", "username": username}
    server.post(server.organization("credentials"), {"name": name, **kind, **value})
    screen.say(f"Created the credential {name}. `minuet set component <component> --credential {name}` uses it.")


@click.command("credentials")
@place.output_option
def list_(output: str) -> None:
    """List credentials, without their values.

    \b
    Example:
      minuet list credentials
    """
    server = place.api()
    items = server.pages(server.organization("credentials"))
    nouns.show_list(
        items,
        output,
        ("name", "kind", "username", "age"),
        lambda c: (c["name"], c["kind"], c["username"], screen.ago(c["createdAt"])),
    )


@click.command("credential")
@_name_argument
@place.output_option
def describe_(name: str, output: str) -> None:
    """Describe a credential, without its value.

    \b
    Example:
      minuet describe credential forge
    """
    nouns.show_page(_find(name), output)


@click.command("credential")
@_name_argument
@place.output_option
def get_(name: str, output: str) -> None:
    """Print a credential, without its value.

    \b
    Example:
      minuet get credential forge
    """
    nouns.show_one(_find(name), output)


@click.command("credential")
@_name_argument
@click.option("--username", help="User name that goes with a token; it stays if not given.")
@_value_options
def set_(name: str, username: str | None, token_stdin: bool, deploy_key: Path | None) -> None:
    """Give a credential a new value; components that use it take it with their next build.

    \b
    Examples:
      minuet set credential forge --token < token.txt
      minuet set credential forge --deploy-key ~/.ssh/deploy
    """
    server = place.api()
    path = server.organization("credentials", name)
    _, etag = server.tagged(path)
    only_name = username is not None and not token_stdin and deploy_key is None
    body = {} if only_name else _value(token_stdin=token_stdin, deploy_key=deploy_key)
    server.patch(path, body | ({} if username is None else {"username": username}), etag=etag)
    screen.say(f"Changed the credential {name}.")


@click.command("credential")
@_name_argument
@place.yes_option
def delete_(name: str, yes: bool) -> None:
    """Delete a credential that no component uses.

    \b
    Example:
      minuet delete credential forge --yes
    """
    server = place.api()
    nouns.confirm(name, f"the credential {name}", lost="its value, which nobody can read back", yes=yes)
    server.delete(server.organization("credentials", name))
    screen.say(f"Deleted the credential {name}.")
