"""What may be asked of the launcher, by whom, and how strictly it is checked.

`client.py` builds these, the launcher decodes them. Every field is typed and
checked, unknown keys are refused, and the table at the end says which role's
socket accepts which request.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from minuet.kernel.errors import Forbidden, invalid_field
from minuet.kernel.names import unknown_key
from minuet.launcher.sandbox import Mount

_INSTANCE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,23}")
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}(/[A-Za-z0-9_.-]{1,64})?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LAYER = re.compile(r"[0-9a-f]{64}")
_MAX_GRACE = 600.0
_RESERVED = ("/usr", "/proc", "/dev", "/bin", "/sbin", "/lib", "/lib64", "/sys", "/etc/passwd", "/etc/group")


@dataclass(frozen=True, slots=True)
class Sealable:
    """A value that is plain text or sealed for this data plane, never both.

    `name` is a variable's name or a file's absolute path; sealed values were
    sealed with the context `<workload key>/<name>`.
    """

    name: str
    value: str | None = field(default=None, repr=False)
    ciphertext: str | None = None


@dataclass(frozen=True, slots=True)
class LayerMount:
    """An unpacked layer, by the digest it is kept under, and where the application sees it."""

    layer: str
    target: str


@dataclass(frozen=True, slots=True)
class StartInstance:
    """Agent: run this; does nothing when an instance of that id runs."""

    id: str
    key: str
    template: str
    generation: int
    command: str
    layers: tuple[LayerMount, ...]
    environment: tuple[Sealable, ...] = ()
    files: tuple[Sealable, ...] = ()
    ports: tuple[int, ...] = ()
    cpu: float = 0.5
    memory: int = 1024**3
    disk: int = 1024**3
    processes: int = 256
    stop_grace: float = 10.0

    def check(self) -> None:
        _matches("id", self.id, _INSTANCE_ID)
        _matches("key", self.key, _KEY)
        _unless(bool(self.command) and "\0" not in self.command, "command", "must be a text without NUL")
        for index, mount in enumerate(self.layers):
            _matches(f"layers.{index}.layer", mount.layer, _LAYER)
            _check_target(f"layers.{index}.target", mount.target)
        for index, item in enumerate(self.environment):
            _matches(f"environment.{index}.name", item.name, _VARIABLE)
        for index, item in enumerate(self.files):
            _check_target(f"files.{index}.name", item.name)
        for item in (*self.environment, *self.files):
            _unless((item.value is None) != (item.ciphertext is None), item.name, "needs a value or a ciphertext")
        _unless(all(0 < port < 65536 for port in self.ports), "ports", "must be between 1 and 65535")  # noqa: PLR2004
        for name in ("cpu", "memory", "disk", "processes"):
            _unless(getattr(self, name) > 0, name, "must be more than 0")
        _unless(0 <= self.stop_grace <= _MAX_GRACE, "stop_grace", f"must be at most {_MAX_GRACE:.0f} seconds")


@dataclass(frozen=True, slots=True)
class StopInstance:
    """Agent: SIGTERM, wait `grace` seconds, kill all; answered when nothing of it runs."""

    id: str
    grace: float = 10.0

    def check(self) -> None:
        _matches("id", self.id, _INSTANCE_ID)
        _unless(0 <= self.grace <= _MAX_GRACE, "grace", f"must be at most {_MAX_GRACE:.0f} seconds")


@dataclass(frozen=True, slots=True)
class RemoveInstance:
    """Agent: stop it if it runs, then forget its files; logs stay."""

    id: str

    def check(self) -> None:
        _matches("id", self.id, _INSTANCE_ID)


@dataclass(frozen=True, slots=True)
class ForgetWorkload:
    """Agent: remove a workload's logs and give its uid back; refused while an instance exists."""

    key: str

    def check(self) -> None:
        _matches("key", self.key, _KEY)


@dataclass(frozen=True, slots=True)
class ListInstances:
    """Agent: every instance, with where it stands."""

    def check(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Unpack:
    """Agent: the descriptor sent along is a tar with that digest; unpack it where layers are kept."""

    digest: str

    def check(self) -> None:
        _matches("digest", self.digest, _DIGEST)


@dataclass(frozen=True, slots=True)
class RemoveLayer:
    """Agent: remove an unpacked layer; refused while an instance uses it."""

    digest: str

    def check(self) -> None:
        _matches("digest", self.digest, _DIGEST)


@dataclass(frozen=True, slots=True)
class ListLayers:
    """Agent: the digests of what is unpacked."""

    def check(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Isolation:
    """Anybody: the class in force, and what is missing for the strongest."""

    def check(self) -> None: ...


@dataclass(frozen=True, slots=True)
class StartRole:
    """Supervisor or agent (gateway only): start a role and keep it running."""

    role: str

    def check(self) -> None: ...


@dataclass(frozen=True, slots=True)
class StopRole:
    """Supervisor: stop a role; answered when it is gone."""

    role: str
    grace: float = 10.0

    def check(self) -> None:
        _unless(0 <= self.grace <= _MAX_GRACE, "grace", f"must be at most {_MAX_GRACE:.0f} seconds")


@dataclass(frozen=True, slots=True)
class ListRoles:
    """Supervisor: every role with pid, start and exits. With `after`, answered at the next change."""

    after: int | None = None

    def check(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Supervisor: stop everything, gateway and shims included; the launcher ends after answering."""

    grace: float = 10.0

    def check(self) -> None:
        _unless(0 <= self.grace <= _MAX_GRACE, "grace", f"must be at most {_MAX_GRACE:.0f} seconds")


@dataclass(frozen=True, slots=True)
class MakeWorkspace:
    """Builder: a folder for one organization's builds, writable by their uid and by the builder."""

    organization: str

    def check(self) -> None:
        _matches("organization", self.organization, _KEY)


@dataclass(frozen=True, slots=True)
class RemoveWorkspace:
    """Builder: remove such a folder with all that builds left in it."""

    path: str

    def check(self) -> None:
        _check_target("path", self.path)


@dataclass(frozen=True, slots=True)
class SandboxCommand:
    """Builder: run one command in a sandbox. Bytes and seconds; `network` is `none` or `proxy`.

    `identity` is `build:<organization id>` or `git`. `disk` bounds what the
    command adds to its writable mounts. A `conversation` lasts as long as somebody
    outside talks, and may wait for other commands meanwhile; it is counted apart,
    so that those others are never refused because of it. The answer comes in two
    documents on the same connection: `started` at once, `exit` at the end.
    Closing it kills.
    """

    identity: str
    argv: tuple[str, ...]
    cwd: str
    mounts: tuple[Mount, ...] = ()
    env: dict[str, str] = field(default_factory=dict, repr=False)
    network: str = "none"
    memory: int = 3 * 1024**3
    processes: int = 512
    seconds: float = 900.0
    disk: int = 4 * 1024**3
    tmp_bytes: int = 512 * 1024**2
    cpu: float | None = None
    conversation: bool = False
    streams: tuple[str, ...] = ()
    """Which of `stdin`, `stdout`, `output` the descriptors sent along are, in order."""

    def check(self) -> None:
        kind, _, organization = self.identity.partition(":")
        known = self.identity == "git" or (kind == "build" and bool(_KEY.fullmatch(organization)))
        _unless(known, "identity", "must be `git` or `build:<organization id>`")
        _unless(self.network in ("none", "proxy"), "network", "must be `none` or `proxy`")
        _unless(bool(self.argv) and not any("\0" in word for word in self.argv), "argv", "must name a program")
        _unless(set(self.streams) <= {"stdin", "stdout", "output"}, "streams", "must be stdin, stdout or output")
        for name in self.env:
            _matches("env", name, _VARIABLE)
        for index, mount in enumerate(self.mounts):
            _check_target(f"mounts.{index}.target", mount.target)
            _unless(mount.source.startswith("/") and ".." not in mount.source.split("/"), "mounts", "must be absolute")
        for name in ("memory", "processes", "seconds", "disk", "tmp_bytes"):
            _unless(getattr(self, name) > 0, name, "must be more than 0")


Request = (
    StartInstance | StopInstance | RemoveInstance | ForgetWorkload | ListInstances | Unpack | RemoveLayer | ListLayers
    | Isolation | StartRole | StopRole | ListRoles | Shutdown | MakeWorkspace | RemoveWorkspace | SandboxCommand
)  # fmt: skip

_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in typing.get_args(Request)}
_AGENT = {"StartInstance", "StopInstance", "RemoveInstance", "ForgetWorkload", "ListInstances", "Unpack"} | {
    *("RemoveLayer", "ListLayers", "Isolation", "StartRole"),
}
ALLOWED: dict[str, frozenset[str]] = {
    "supervisor": frozenset({"StartRole", "StopRole", "ListRoles", "Shutdown", "Isolation", "ListInstances"}),
    "agent": frozenset(_AGENT),
    "builder": frozenset({"MakeWorkspace", "RemoveWorkspace", "SandboxCommand", "Isolation"}),
}
"""Which role's socket accepts which request."""

STARTABLE: dict[str, frozenset[str]] = {
    "supervisor": frozenset({"server", "builder", "agent", "gateway"}),
    "agent": frozenset({"gateway"}),
}
"""Which roles each role may start."""


def decode(role: str, message: dict[str, Any]) -> Request:
    """Returns the checked request; raises `Invalid`, or `Forbidden` if the role may not ask it."""
    name = message.get("ask")
    if name not in ALLOWED[role]:
        raise Forbidden(f"{role} may not ask the launcher for {name}", code="NotAllowed")
    request: Request = build(_KINDS[name], message.get("with", {}), "")
    request.check()
    if isinstance(request, StartRole) and request.role not in STARTABLE[role]:
        raise Forbidden(f"{role} may not start {request.role}", code="NotAllowed")
    return request


def encode(request: Request) -> dict[str, Any]:
    """The document that `decode` reads."""
    return {"ask": type(request).__name__, "with": dataclasses.asdict(request)}


Built = TypeVar("Built")


def build(kind: type[Built], given: Any, path: str) -> Built:
    """Makes a dataclass from JSON values, checking every type; raises `Invalid` naming the field."""
    if not isinstance(given, dict):
        raise invalid_field(path or "with", "must be an object")
    hints = typing.get_type_hints(kind)
    for key in given:
        if key not in hints:
            raise unknown_key(path, key, hints)
    values = {name: _value(hints[name], value, f"{path}.{name}".lstrip(".")) for name, value in given.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise invalid_field(path or "with", f"is incomplete: {error}") from error


def _value(hint: Any, given: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        inner = next(item for item in arguments if item is not type(None))
        return None if given is None else _value(inner, given, path)
    if origin is tuple:
        if not isinstance(given, list):
            raise invalid_field(path, "must be a list")
        return tuple(_value(arguments[0], item, f"{path}.{index}") for index, item in enumerate(given))
    if origin is dict:
        if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
            raise invalid_field(path, "must be an object of texts")
        return dict(given)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, given, path)
    if hint is float and type(given) is int:
        return float(given)
    if type(given) is not hint:
        raise invalid_field(path, f"must be a {hint.__name__}")
    return given


def _matches(name: str, value: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(value):
        raise invalid_field(name, "has characters or a length that are not allowed", given=value)


def _unless(condition: bool, name: str, message: str) -> None:
    if not condition:
        raise invalid_field(name, message)


def _check_target(name: str, path: str) -> None:
    parts = path.split("/")
    whole = path.startswith("/") and len(path) > 1 and "\0" not in path and not {"", ".", ".."} & set(parts[1:])
    _unless(whole, name, "must be an absolute path without `.` and `..`")
    taken = any(path == place or path.startswith(place + "/") for place in _RESERVED)
    if taken:
        raise invalid_field(name, "lies where the sandbox keeps its own system", given=path)
