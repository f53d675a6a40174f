"""Credentials for private repositories."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from minuet.cli import config_sources, nouns, place, screen
from minuet.kernel.errors import invalid_field


@click.command("credential")
@click.argument("name")
@click.option("--username", default="git", show_default=True, help="User name that goes with a token.")
@click.option("--token-stdin", is_flag=True, help="Read a token from standard input.")
@click.option(
    "--deploy-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File with a private key."
)
def create_(name: str, username: str, token_stdin: bool, deploy_key: Path | None) -> None:
    """Create a credential for private repositories; its value is never shown again.

    \b
    Example:
      minuet create credential forge --username me --token-stdin < token.txt
    """
    server = place.api()
    if deploy_key is not None:
        body = {"name": name, "kind": "deploy-key", "deployKey": config_sources.read(deploy_key)}
    else:
        token = sys.stdin.readline(4096).strip() if token_stdin else _asked()
        body = {"name": name, "kind": "token", "username": username, "token": token}
    server.post(server.organization("credentials"), body)
    screen.say(f"Created the credential {name}. Use it with `minuet create component ... --credential {name}`.")


def _asked() -> str:
    if not screen.is_terminal():
        raise invalid_field("token", "is required", hint="give it with --token-stdin")
    token: str = click.prompt("Token", hide_input=True, err=True)
    return token


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
@click.argument("name")
@place.output_option
def get_(name: str, output: str) -> None:
    """Print a credential, without its value.

    \b
    Example:
      minuet get credential forge
    """
    server = place.api()
    nouns.show_one(server.get(server.organization("credentials", name)), output)


describe_ = get_


@click.command("credential")
@click.argument("name")
@place.yes_option
def delete_(name: str, yes: bool) -> None:
    """Delete a credential.

    \b
    Example:
      minuet delete credential forge --yes
    """
    server = place.api()
    nouns.confirm("credential", name, yes)
    server.delete(server.organization("credentials", name))
    screen.say(f"Deleted the credential {name}.")
