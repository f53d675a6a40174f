"""What each role on one machine is told: its settings file, and the credential it presents.

Written anew at every start from the installation's choices, so that what stands
in the files is always what was chosen.
"""

from __future__ import annotations

import os
from pathlib import Path

from minuet.server.installation import PLANE, Installation, to_toml, write_whole

_HEAD = "# Written by `minuet up` at every start; change its options instead.\n"


def write_settings(data: Path, chosen: Installation) -> None:
    """Writes the settings of launcher, server, builder, agent and gateway."""
    files = {
        "launcher": _launcher(chosen),
        "server": _server(chosen),
        "builder": _builder(chosen),
        "agent": _agent(chosen),
        "gateway": to_toml({"directory": "../plane/gateway"}),
    }
    for role, text in files.items():
        write_whole(data / role / "settings.toml", _HEAD + text, mode=0o644)


def hand_over_credentials(data: Path) -> None:
    """Copies the credentials that the server made to the roles that present them, each readable by one uid."""
    for role in ("builder", "agent"):
        token = (data / "server" / "credentials" / f"{role}.token").read_text()
        # The launcher made the role's folder and gave it the role's group, whose number is also its uid.
        owner = (data / role).stat().st_gid if os.geteuid() == 0 else None
        write_whole(data / role / "credential", token, mode=0o600, owner=owner)


def owner_token(data: Path) -> str:
    """The token of the first organization's owner."""
    return (data / "server" / "owner.token").read_text().strip()


def _launcher(chosen: Installation) -> str:
    values = {"uid_base": chosen.uid_base, "isolation": chosen.isolation or "auto", "address_pool": chosen.network_pool}
    return to_toml(values)


def _server(chosen: Installation) -> str:
    return (
        to_toml({"data": "."})
        + f"\n[listen]\nport = {chosen.api_port}\n"
        + f"\n[storage]\n{to_toml({'url': chosen.database})}"
        + f"\n[plane]\n{to_toml({'domain': chosen.domain})}"
        + f"\n[repositories]\n{to_toml({'allow_files': chosen.allow_local_repositories})}"
    )


def _builder(chosen: Installation) -> str:
    return to_toml(
        {
            "directory": ".",
            "server": f"http://127.0.0.1:{chosen.api_port}",
            "credential": "credential",
            "launcher": "../launcher/sockets/builder.sock",
            "port": chosen.builder_port,
            "allow_local_repositories": chosen.allow_local_repositories,
        }
    )


def _agent(chosen: Installation) -> str:
    return to_toml(
        {
            "plane": PLANE,
            "directory": "../plane",
            "servers": [f"http://127.0.0.1:{chosen.api_port}"],
            "credential": "credential",
            "launcher": "../launcher/sockets/agent.sock",
            "gateway_port": chosen.gateway_port,
        }
    )
