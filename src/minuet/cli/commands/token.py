"""Access tokens."""

from __future__ import annotations

import click

from minuet.cli import nouns, place, screen


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
    nouns.show_list(
        items,
        output,
        ("id", "name", "read only", "age"),
        lambda t: (t["id"], t["name"], "yes" if t.get("readOnly") else "no", screen.ago(t["createdAt"])),
    )


@click.command("token")
@click.argument("token")
@place.yes_option
def delete_(token: str, yes: bool) -> None:
    """Revoke an access token by its id.

    \b
    Example:
      minuet delete token tok_01... --yes
    """
    server = place.api()
    nouns.confirm("token", token, yes)
    server.delete(server.organization("tokens", token))
    screen.say(f"Revoked the token {token}.")
