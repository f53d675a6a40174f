"""Settings of the agent, one TOML file."""

from __future__ import annotations

from pathlib import Path

from minuet.infra.settings import FilePath, Settings, setting


class AgentSettings(Settings):
    """Where the data plane keeps what it knows, and how it reaches the control plane."""

    plane: str = setting("default", reason="Name of this data plane, as the control plane knows it.")
    directory: FilePath = setting(reason="Everything the data plane keeps: inventory, gateway, artifacts, logs.")
    servers: tuple[str, ...] = setting(
        reason="Addresses of the control plane, tried in turn; http only on loopback, https elsewhere."
    )
    credential: FilePath = setting(reason="File with the token that this data plane presents.")
    fingerprint: str | None = setting(None, reason="SHA-256 of the control plane's certificate, which is then pinned.")
    signing_key: str | None = setting(
        None, reason="Key that desired state is signed with; learned at the first welcome and pinned if not given."
    )
    launcher: FilePath | None = setting(None, reason="Socket of the launcher; needed by the process driver.")
    driver: str = setting("process", reason="What runs instances: process or memory.", pattern="^(process|memory)$")
    gateway_address: str = setting("127.0.0.1", reason="Address that the gateway listens on.")
    gateway_port: int = setting(8480, unit="port", reason="Port that applications are reached at.", ge=1, le=65535)
    envoy: str = setting("", reason="Envoy's program, as in the gateway's settings; it checks what it is to run.")
    gateway_url: str | None = setting(None, reason="How the gateway is reached from outside, if not at its port.")

    @property
    def inventory(self) -> Path:
        return self.directory / "inventory"

    @property
    def gateway(self) -> Path:
        return self.directory / "gateway"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"
