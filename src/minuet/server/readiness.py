"""Whether the parts of the platform on this machine answer, asked from outside as their users would ask.

The server is told from another Minuet at its port by the agent's credential,
which only the server of this data directory knows.
"""

from __future__ import annotations

import enum
import ssl
from http import HTTPStatus
from pathlib import Path

import httpx2

from minuet.control.tenancy.model import DEFAULT
from minuet.gateway.model import PROBE_HOST, PROBE_PATH
from minuet.infra import http
from minuet.kernel.addresses import dialable
from minuet.server import roles
from minuet.server.installation import Installation, bracketed

_SECONDS = 5.0


class Server(enum.Enum):
    """Who answers at the API's port."""

    SILENT = "nobody, or a server that is not ready"
    OURS = "the server of this data directory"
    ANOTHERS = "another Minuet"


async def of_server(data: Path, chosen: Installation) -> Server:
    """Who answers at the port that was chosen."""
    certificate = roles.fingerprint(data, "server", chosen)
    if chosen.wants_tls and certificate is None:
        return Server.SILENT
    try:
        async with http.client(fingerprint=certificate, read_seconds=_SECONDS) as client:
            if (await client.get(f"{chosen.api_url}/readyz")).status_code != HTTPStatus.OK:
                return Server.SILENT
            headers = {"Authorization": f"Bearer {roles.credential(data, 'agent')}"}
            answer = await client.get(f"{chosen.api_url}/api/v1/me", headers=headers)
    except FileNotFoundError:
        # Our own server writes the credential before it serves.
        return Server.ANOTHERS
    except (httpx2.HTTPError, OSError, ssl.SSLError):
        return Server.SILENT
    return Server.ANOTHERS if answer.status_code == HTTPStatus.UNAUTHORIZED else Server.OURS


async def missing(data: Path, chosen: Installation) -> list[str]:
    """The roles that do not do their part yet, in the order in which they depend on each other."""
    found = {
        "builder": await _builder_joined(data, chosen),
        "agent": await _agent_joined(data, chosen),
        "gateway": await gateway_answers(chosen),
    }
    return [role for role, is_there in found.items() if not is_there]


async def _builder_joined(data: Path, chosen: Installation) -> bool:
    answer = await _document(f"{chosen.builder_url}/healthz", roles.fingerprint(data, "builder", chosen), {})
    return answer.get("registered") is True


async def _agent_joined(data: Path, chosen: Installation) -> bool:
    """As the owner sees it; where the owner's token was put away, nobody can look."""
    token = roles.owner_token(data)
    if token is None:
        return True
    url = f"{chosen.api_url}/api/v1/organizations/{DEFAULT}/data-planes"
    headers = {"Authorization": f"Bearer {token}"}
    planes = (await _document(url, roles.fingerprint(data, "server", chosen), headers)).get("items")
    return isinstance(planes, list) and all(plane.get("connected") for plane in planes)


async def gateway_answers(chosen: Installation) -> bool:
    """Whether a request through the listener itself is answered by our gateway."""
    url = f"http://{bracketed(dialable(chosen.gateway_address))}:{chosen.gateway_port}{PROBE_PATH}"
    try:
        async with http.client(read_seconds=_SECONDS) as client:
            return (await client.get(url, headers={"Host": PROBE_HOST})).status_code == HTTPStatus.OK
    except (httpx2.HTTPError, OSError):
        return False


async def _document(url: str, fingerprint: str | None, headers: dict[str, str]) -> dict[str, object]:
    """The JSON object at an address; an empty one for every other answer."""
    try:
        async with http.client(fingerprint=fingerprint, read_seconds=_SECONDS) as client:
            found = (await client.get(url, headers=headers)).json()
    except (httpx2.HTTPError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
