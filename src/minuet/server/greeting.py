"""What is said when the platform is up, and the context that signs the person who started it in."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
from pathlib import Path

from minuet.client import contexts
from minuet.client.api import Api
from minuet.client.contexts import Context
from minuet.kernel.errors import MinuetError, Unauthenticated, Unavailable
from minuet.server import roles
from minuet.server.embedded import Supervisor, Talk
from minuet.server.installation import Installation
from minuet.server.settings import is_loopback

UP = "Minuet is up"
"""How the line begins that says so; whoever started a detached supervisor waits for it."""


async def greet(supervisor: Supervisor, data: Path, chosen: Installation, seconds: float, talk: Talk) -> None:
    """Tells the class of isolation, how others reach the platform, and where the API is."""
    for line in await supervisor.isolation():
        talk(line)
    for line in how_others_reach_it(data, chosen):
        talk(line)
    await asyncio.to_thread(sign_in, data, chosen, talk)
    talk(f"{UP} ({seconds:.1f} s). API and its documentation: {chosen.public_api_url}/docs")


def how_others_reach_it(data: Path, chosen: Installation) -> list[str]:
    """For a platform that listens beyond loopback: the command for another machine, and where applications are."""
    lines = []
    if shown := roles.fingerprint(data, "server", chosen):
        lines += [
            "From another machine, with the token in " + str(data / roles.OWNER_TOKEN) + ":",
            f"  minuet login --server {chosen.public_api_url} --fingerprint {shown} --with-token < owner.token",
        ]
    if not is_loopback(chosen.gateway_address):
        lines.append(
            f"Applications are reached at {roles.gateway_url(chosen)}, by the host names below {chosen.domain}."
        )
    return lines


def context_name(chosen: Installation) -> str:
    """The context of this installation; those at another port than the usual one have it in their name."""
    return "local" if chosen.api_port == Installation.api_port else f"local-{chosen.api_port}"


def owner_context(data: Path, chosen: Installation) -> Context:
    """The owner's way to the platform of this machine; raises `Unauthenticated` when the token was put away."""
    token = roles.owner_token(data)
    if token is None:
        raise Unauthenticated(
            f"{data / roles.OWNER_TOKEN} was put away",
            hint="sign in with another token: `minuet login --server <url> --with-token`",
        )
    return Context(chosen.api_url, token, fingerprint=roles.fingerprint(data, "server", chosen))


def sign_in(data: Path, chosen: Installation, talk: Talk) -> None:
    """Signs in the person who started the platform; what goes wrong is told, because the platform runs without it."""
    try:
        name = context_name(chosen)
        made = owner_context(data, chosen)
        current, known = contexts.load()
        existing = known.get(name)
        if existing is None or not _still_opens(existing, made):
            contexts.save(name, made, use=current not in known)
        if current in known and current != name:
            talk(f"The current context stays {current}; `{command()} context use {name}` changes to this platform.")
    except MinuetError as error:
        talk(f"You are not signed in: {error.message}" + (f" ({error.hint})" if error.hint else ""))


def is_current(chosen: Installation) -> bool:
    """Whether commands without more ado go to this installation."""
    return contexts.load()[0] == context_name(chosen)


def _still_opens(existing: Context, made: Context) -> bool:
    """Whether a context that is there already works, with the organization and project somebody chose in it."""
    if (existing.server, existing.fingerprint) != (made.server, made.fingerprint):
        return False
    try:
        Api(existing).get("/me")
    except Unavailable:
        return existing.token == made.token
    except MinuetError:
        return False
    return True


def command() -> str:
    """What a person types to call this very program: its name where the shell finds it, else its path."""
    ours = Path(sys.executable).with_name("minuet")
    found = shutil.which("minuet")
    if found is not None and ours.exists() and Path(found).samefile(ours):
        return "minuet"
    return shlex.quote(str(ours.relative_to(Path.cwd()) if ours.is_relative_to(Path.cwd()) else ours))
