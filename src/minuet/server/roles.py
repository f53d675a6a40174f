"""What each role on one machine is told: its settings file, and the credential it presents.

Written at every start from the installation's choices, so that what stands in
the files is always what was chosen. Builder and agent come second: they pin the
certificate that the server makes at its first start.
"""

from __future__ import annotations

import os
from pathlib import Path

from minuet.server.installation import PLANE, Installation, to_toml, write_if_new, write_whole
from minuet.server.settings import is_loopback

_HEAD = "# Written by `minuet up` at every start; change its options instead.\n"
OWNER_TOKEN = Path("server", "owner.token")


def write_first(data: Path, chosen: Installation) -> frozenset[str]:
    """Writes the settings of launcher, server and gateway; returns the roles that are told something new."""
    gateway = to_toml({"directory": "../plane/gateway", "envoy": chosen.envoy})
    return _write(data, {"launcher": _launcher(chosen), "server": _server(chosen), "gateway": gateway})


def write_second(data: Path, chosen: Installation) -> frozenset[str]:
    """Writes the settings of builder and agent once the server is up; returns those that are told something new."""
    return _write(data, {"builder": _builder(data, chosen), "agent": _agent(data, chosen)})


def _write(data: Path, files: dict[str, str]) -> frozenset[str]:
    changed = {role: write_if_new(data / role / "settings.toml", _HEAD + text, 0o644) for role, text in files.items()}
    return frozenset(role for role, is_new in changed.items() if is_new)


def hand_over_credentials(data: Path) -> None:
    """Copies the credentials that the server made to the roles that present them, each readable by one uid."""
    for role in ("builder", "agent"):
        # The launcher made the role's folder and gave it the role's group, whose number is also its uid.
        owner = (data / role).stat().st_gid if os.geteuid() == 0 else None
        write_whole(data / role / "credential", credential(data, role), mode=0o600, owner=owner)


def credential(data: Path, role: str) -> str:
    """What builder or agent presents; the server keeps it valid as long as it runs."""
    return (data / "server" / "credentials" / f"{role}.token").read_text().strip()


def owner_token(data: Path) -> str | None:
    """The token of the first organization's owner; None before the first start, or when it was put away."""
    path = data / OWNER_TOKEN
    return path.read_text().strip() if path.exists() else None


def fingerprint(data: Path, role: str, chosen: Installation) -> str | None:
    """SHA-256 of the certificate that server or builder shows; None where there is no TLS, or no certificate yet."""
    path = data / role / "tls" / "fingerprint"
    return path.read_text().strip() if chosen.wants_tls and path.exists() else None


def _launcher(chosen: Installation) -> str:
    values = {"uid_base": chosen.uid_base, "isolation": chosen.isolation or "auto", "address_pool": chosen.network_pool}
    return to_toml(values)


def _server(chosen: Installation) -> str:
    return (
        to_toml({"data": "."})
        + f"\n[listen]\n{to_toml({'host': chosen.listen, 'port': chosen.api_port})}"
        + f"\n[storage]\n{to_toml({'url': chosen.database})}"
        + f"\n[plane]\n{to_toml({'domain': chosen.domain})}"
        + f"\n[repositories]\n{to_toml({'allow_files': chosen.allow_local_repositories})}"
    )


def _builder(data: Path, chosen: Installation) -> str:
    values = {
        "directory": ".",
        "server": chosen.api_url,
        "credential": "credential",
        "launcher": "../launcher/sockets/builder.sock",
        "address": chosen.listen,
        "port": chosen.builder_port,
        "allow_local_repositories": chosen.allow_local_repositories,
    }
    if chosen.wants_tls:
        values["url"] = chosen.public_builder_url
    return to_toml(values | _pinned(data, chosen))


def _agent(data: Path, chosen: Installation) -> str:
    values = {
        "plane": PLANE,
        "directory": "../plane",
        "servers": [chosen.api_url],
        "credential": "credential",
        "launcher": "../launcher/sockets/agent.sock",
        "gateway_address": chosen.gateway_address,
        "gateway_port": chosen.gateway_port,
        "envoy": chosen.envoy,
    }
    if chosen.gateway_url or not is_loopback(chosen.gateway_address):
        values["gateway_url"] = gateway_url(chosen)
    return to_toml(values | _pinned(data, chosen))


def gateway_url(chosen: Installation) -> str:
    """How people reach applications: what was given, else the port at the domain."""
    return chosen.gateway_url or f"http://{chosen.domain}:{chosen.gateway_port}"


def _pinned(data: Path, chosen: Installation) -> dict[str, str]:
    shown = fingerprint(data, "server", chosen)
    return {"fingerprint": shown} if shown else {}
