"""Access tokens."""

from __future__ import annotations

from typing import Any

import click

from minuet.cli import nouns, place, screen


def _find(token: str) -> dict[str, Any]:
    server = place.api()
    return server.get(server.organization("tokens", token))


@click.command("token")
@click.argument("name")
@click.option("--read-only", is_flag=True, help="It may look and change nothing.")
@click.option("--expires-at", help="When it ends, such as 2027-01-01T00:00:00Z.")
def create_(name: str, read_only: bool, expires_at: str | None) -> None:
    """Create an access token; it is printed once.

    \b
    Example:
      minuet create token ci --read-only
    """
    server = place.api()
    body = {"name": name, "readOnly": read_only} | ({"expiresAt": expires_at} if expires_at else {})
    made = server.post(server.organization("tokens"), body)
    screen.say(f"Created the token {name}, shown only now:")
    screen.data(made["token"])


@click.command("tokens")
@place.output_option
def list_(output: str) -> None:
    """List access tokens, without their values.

    \b
    Example:
      minuet list tokens
    """
    server = place.api()
    items = server.pages(server.organization("tokens"))
    nouns.show_list(items, output, ("id", "name", "role", "expires", "last used", "age"), _row)


def _row(token: dict[str, Any]) -> tuple[object, ...]:
    used = f"{screen.ago(token['lastUsedAt'])} ago" if token.get("lastUsedAt") else "never"
    ends = token.get("expiresAt") or "never"
    return token["id"], token["name"], token["role"], ends, used, screen.ago(token["createdAt"])


@click.command("token")
@click.argument("token")
@place.output_option
def describe_(token: str, output: str) -> None:
    """Describe an access token by id or name: its role, when it ends, when it was last used.

    \b
    Example:
      minuet describe token ci
    """
    nouns.show_page(_find(token), output)


@click.command("token")
@click.argument("token")
@place.output_option
def get_(token: str, output: str) -> None:
    """Print an access token by id or name, without its value.

    \b
    Example:
      minuet get token ci -o json
    """
    nouns.show_one(_find(token), output)


@click.command("token")
@click.argument("token")
@place.yes_option
def delete_(token: str, yes: bool) -> None:
    """Revoke an access token by id or name.

    \b
    Example:
      minuet delete token ci --yes
    """
    server = place.api()
    nouns.confirm(token, f"the token {token}", lost="the access of whoever uses it, at once", yes=yes)
    server.delete(server.organization("tokens", token))
    screen.say(f"Revoked the token {token}.")
