"""Whether the three ports of an installation are free, asked before anything of it is started.

Without this a start would find whoever listens there: another installation
answers as well as our own would, and anything else costs a minute of waiting.
"""

from __future__ import annotations

import socket

from minuet.kernel.errors import Conflict, invalid_field
from minuet.server.installation import Installation


def check_free(chosen: Installation) -> None:
    """Raises `Conflict` (`PortTaken`) for the first port that cannot be bound."""
    for flag, host, port in doors(chosen):
        if why := obstacle(host, port):
            raise taken(flag, host, port, why)


def doors(chosen: Installation) -> tuple[tuple[str, str, int], ...]:
    """Where the platform listens: the flag that chooses the port, the address, the port."""
    return (
        ("--api-port", chosen.listen, chosen.api_port),
        ("--builder-port", chosen.listen, chosen.builder_port),
        ("--gateway-port", chosen.gateway_address, chosen.gateway_port),
    )


def obstacle(host: str, port: int) -> str | None:
    """Why nobody can listen there now; None when one can. Raises `Invalid` for an address that is not of this machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise invalid_field("listen", f"is not an address: {error}", given=host) from error
    with socket.socket(family, kind, protocol) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(address)
        except OSError as error:
            return error.strerror
    return None


def taken(flag: str, host: str, port: int, why: str) -> Conflict:
    """The error for a door that somebody else stands in."""
    return Conflict(
        f"{host}:{port} cannot be listened on: {why}",
        code="PortTaken",
        hint=f"stop what listens there, or choose another port with {flag} (remembered in minuet.toml)",
    )
