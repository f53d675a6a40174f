"""Settings of the builder, one TOML file."""

from __future__ import annotations

from pathlib import Path

from minuet.infra.settings import FilePath, Settings, setting


class BuilderSettings(Settings):
    """Where the builder keeps repositories and artifacts, and how it and the control plane reach each other."""

    directory: FilePath = setting(reason="Repositories, artifacts, caches, logs and keys of this builder.")
    server: str = setting(reason="Address of the control plane; http only on loopback.")
    credential: FilePath = setting(reason="File with the token that this builder presents.")
    fingerprint: str | None = setting(None, reason="SHA-256 of the control plane's certificate, which is then pinned.")
    launcher: FilePath = setting(reason="Socket of the launcher that runs the sandboxes.")
    address: str = setting("127.0.0.1", reason="Address to listen on for artifacts, logs and Git.")
    port: int = setting(8401, unit="port", reason="Port to listen on.", ge=1, le=65535)
    url: str | None = setting(None, reason="How others reach this builder, if not at its address and port.")
    certificate: FilePath | None = setting(None, reason="Certificate for TLS; made at the first start off loopback.")
    certificate_key: FilePath | None = setting(None, reason="Key of that certificate.")
    concurrency: int = setting(2, unit="builds", reason="Builds are bound by CPU; one per core.", ge=1, le=64)
    allow_local_repositories: bool = setting(False, reason="Whether file:// repositories of this machine may be built.")
    private_networks: tuple[str, ...] = setting(
        (), reason="Networks of private addresses that repositories may be fetched from, as 10.1.0.0/16."
    )
    log_days: int = setting(30, unit="days", reason="How long logs of builds are kept.", ge=1)

    cache_bytes: int = setting(
        20 * 1024**3,
        unit="bytes",
        reason="Dependencies and toolchains kept for later builds, beside the artifacts.",
        ge=0,
    )

    @property
    def base_url(self) -> str:
        scheme = "https" if self.certificate or not self.is_loopback else "http"
        return self.url or f"{scheme}://{self.address}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it; everywhere else it speaks TLS."""
        return self.address in ("127.0.0.1", "::1", "localhost")

    @property
    def store(self) -> Path:
        return self.directory / "store"

    @property
    def repositories(self) -> Path:
        return self.directory / "repositories"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def open_workspaces(self) -> Path:
        """Which workspaces are open, so that the next start removes what is left of them."""
        return self.directory / "open"

    @property
    def results(self) -> Path:
        return self.directory / "results"
