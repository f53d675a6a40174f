"""One machine's installation: where its data is, which ports it uses, what each role is told.

`minuet up` loads it from `<data>/minuet.toml` (writing it at first start), and
writes one settings file per role from it at every start, so that each role can
as well be started alone. Separate from the supervisor because it only decides;
nothing here starts a process.
"""

from __future__ import annotations

import os
import socket
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from minuet.kernel.addresses import dialable
from minuet.kernel.errors import Invalid, invalid_field
from minuet.kernel.names import unknown_key
from minuet.server.settings import is_loopback

FILE = "minuet.toml"
PLANE = "default"
_PORT_LIMIT = 65536


@dataclass(frozen=True)
class Installation:
    """The choices of one installation; every field can be given to `minuet up` once and is remembered.

    `uid_base` is the first of the numeric uids that roles, builds and workloads
    get when the platform runs as root; `network_pool` the private network that
    instances live in (empty: a free one is chosen); `domain` what host names of
    components end in. `listen` is the address of API and builder, beyond loopback
    with TLS; `gateway_address` that of applications, and `gateway_url` how people
    reach it if not at its own address and port. `envoy` is the program of the
    gateway (empty: the installed wheel's, else the one on the PATH).
    """

    api_port: int = 8400
    builder_port: int = 8401
    gateway_port: int = 8480
    listen: str = "127.0.0.1"
    gateway_address: str = "127.0.0.1"
    gateway_url: str = ""
    envoy: str = ""
    isolation: str = ""
    uid_base: int = 300_000
    network_pool: str = ""
    domain: str = "localhost"
    database: str = ""
    allow_local_repositories: bool = False

    @property
    def wants_tls(self) -> bool:
        """Whether API and builder speak TLS, which they do wherever another machine can reach them."""
        return not is_loopback(self.listen)

    @property
    def api_url(self) -> str:
        """How this machine reaches the API."""
        return self._url(dialable(self.listen), self.api_port)

    @property
    def builder_url(self) -> str:
        """How this machine reaches the builder."""
        return self._url(dialable(self.listen), self.builder_port)

    @property
    def public_api_url(self) -> str:
        """How others reach the API."""
        return self._url(reachable(self.listen), self.api_port)

    @property
    def public_builder_url(self) -> str:
        """How others reach the builder, which is where Git pushes to."""
        return self._url(reachable(self.listen), self.builder_port)

    def _url(self, host: str, port: int) -> str:
        return f"{'https' if self.wants_tls else 'http'}://{bracketed(host)}:{port}"


def load(data: Path, changes: dict[str, Any]) -> Installation:
    """Reads the remembered choices, applies the given ones, and checks the result.

    Raises `Invalid` naming the field for an unknown key or a value out of range.
    """
    known = {field.name for field in fields(Installation)}
    stored = read(data / FILE)
    for key in stored:
        if key not in known:
            raise unknown_key(FILE, key, known)
    installation = replace(Installation(**stored), **{k: v for k, v in changes.items() if v is not None})
    _check(installation)
    if stored and installation.domain != stored.get("domain", installation.domain):
        raise invalid_field(
            "domain",
            "is chosen at the first start; every address that was given out ends with it",
            given=installation.domain,
            allowed=[stored["domain"]],
        )
    return installation


def save(data: Path, installation: Installation) -> None:
    """Remembers the choices, whole or not at all."""
    text = "# Written by `minuet up`; its options change what stands here.\n" + to_toml(asdict(installation))
    write_if_new(data / FILE, text)


def read(path: Path) -> dict[str, Any]:
    """What stands in the file; nothing when there is none. Raises `Invalid` for one that cannot be read."""
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(
            f"{path} cannot be read: {error}", code="BadSettings", hint="correct or remove the file"
        ) from error


def _check(installation: Installation) -> None:
    hints = get_type_hints(Installation)
    for name, value in asdict(installation).items():
        if not isinstance(value, hints[name]) or (hints[name] is int and isinstance(value, bool)):
            raise invalid_field(f"{FILE}.{name}", f"must be {hints[name].__name__}", given=value)
    ports = {name: value for name, value in asdict(installation).items() if name.endswith("_port")}
    for name, value in ports.items():
        if not 0 < value < _PORT_LIMIT:
            raise invalid_field(f"{FILE}.{name}", "must be a port between 1 and 65535", given=value)
    if installation.gateway_url and not installation.gateway_url.startswith(("http://", "https://")):
        raise invalid_field(
            f"{FILE}.gateway_url", "must start with http:// or https://", given=installation.gateway_url
        )
    if len(set(ports.values())) != len(ports):
        raise invalid_field(f"{FILE}.api_port", "the three ports must differ", given=sorted(ports.values()))


def reachable(address: str) -> str:
    """Where other machines reach it; for every address at once, that of the way to the outside."""
    if dialable(address) == address:
        return address
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    outside = "2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1"
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Nothing is sent: connecting a datagram socket only chooses the way.
            probe.connect((outside, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()


def bracketed(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def to_toml(values: dict[str, Any]) -> str:
    """Writes flat values (text, numbers, truth, lists of text) as TOML lines."""
    return "".join(f"{key} = {_literal(value)}\n" for key, value in values.items())


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def write_if_new(path: Path, text: str, mode: int = 0o600) -> bool:
    """Replaces a small file unless it says the same already; returns whether it did."""
    try:
        if path.read_text() == text:
            return False
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    write_whole(path, text, mode)
    return True


def write_whole(path: Path, text: str, mode: int = 0o600, owner: int | None = None) -> None:
    """Replaces a small file atomically, readable by its owner only unless `mode` says otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.chmod(mode)
    if owner is not None:
        os.chown(temporary, owner, owner)
    temporary.replace(path)
