"""Settings of the server process: `<data>/server/settings.toml`."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal

from minuet.infra.settings import FilePath, Settings, setting
from minuet.kernel.errors import invalid_field


class Listen(Settings):
    """Where the API is reached."""

    host: str = setting("127.0.0.1", reason="Only this machine, unless it is changed; every other address gets TLS.")
    port: int = setting(8400, unit="port", ge=0, le=65535, reason="0 takes a free one, which the log then names.")
    tls: Literal["auto", "always", "never"] = setting(
        "auto", reason="`auto` means TLS on everything but loopback; `never` is refused there."
    )
    certificate: FilePath | None = setting(None, reason="PEM file; without it one is made at the first start.")
    key: FilePath | None = setting(None, reason="PEM file of the certificate's key.")


class Storage(Settings):
    """Where the control plane remembers."""

    url: str = setting("", reason="`postgresql://...`; empty means the SQLite file `minuet.db` in the data directory.")
    connections: int = setting(10, unit="connections", ge=2, le=200, reason="PostgreSQL only; per replica.")


class Plane(Settings):
    """The data plane that is made at the first start."""

    domain: str = setting("localhost", reason="Host names of components end with it; `*.localhost` needs no DNS.")


class Repositories(Settings):
    """Where components may take their source from."""

    allow_files: bool = setting(
        False, reason="`file://` URLs reach into the builder's own disk; for one person on one machine they are handy."
    )


class Limits(Settings):
    """Bounds of the HTTP server."""

    body_bytes: int = setting(1024 * 1024, unit="bytes", ge=1024, reason="No request of the API needs more.")
    stop_seconds: float = setting(8.0, unit="s", gt=0, reason="How long requests may finish after a stop was asked.")


class ServerSettings(Settings):
    """All of them."""

    data: FilePath = setting(Path(), reason="Directory of keys, credentials and the SQLite file.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = setting("INFO", reason="Requests are logged at INFO.")
    listen: Listen = Listen()
    storage: Storage = Storage()
    plane: Plane = Plane()
    repositories: Repositories = Repositories()
    limits: Limits = Limits()

    @property
    def database_url(self) -> str:
        """The URL of the database, with the default filled in."""
        return self.storage.url or f"sqlite:///{(self.data / 'minuet.db').absolute()}"

    @property
    def wants_tls(self) -> bool:
        """Whether to serve TLS; raises `Invalid` for plain HTTP on anything but loopback."""
        if is_loopback(self.listen.host):
            return self.listen.tls == "always"
        if self.listen.tls == "never":
            raise invalid_field(
                "listen.tls",
                "must not be never when the server listens on more than loopback",
                given="never",
                allowed=("auto", "always"),
            )
        return True


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
