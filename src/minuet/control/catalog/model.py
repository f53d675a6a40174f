"""Projects, components and credentials as values, and the rules that need no database."""

from __future__ import annotations

import datetime
import enum
import ipaddress
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from minuet.kernel.errors import invalid_field
from minuet.kernel.names import MAX_DESCRIPTION, check_text, unknown_key
from minuet.render.inputs import ComponentType

MAX_URL = 500
MAX_PATH = 500
MAX_BRANCH = 200
MAX_CONFIG_VALUE = 2000
MAX_BUILD_VARIABLES = 100

BUILD_CONFIG_KEYS = (
    "buildpack",
    "buildPackLangVersion",
    "port",
    "runCommand",
    "buildCommand",
    "outputDirectory",
    "nodeVersion",
)
"""The keys of `--build-configs`, as the reference spells them."""

_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+@-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SCP = re.compile(r"(?:[A-Za-z0-9._-]+@)?[A-Za-z0-9.-]+:[^/:@][^:@]*")
_USER_INFORMATION = re.compile(r"[^/@]*@")
_NUMBERS = re.compile(r"(?:0x[0-9a-f]+|[0-9]+)(?:\.(?:0x[0-9a-f]+|[0-9]+))*")
"""Addresses in the other spellings that resolvers take, such as 127.1 and 0x7f000001."""

_HIGHEST_PORT = 65535


class Lifecycle(enum.StrEnum):
    """Whether a row is in use, or on its way out until its last hold is gone."""

    ACTIVE = "Active"
    DELETING = "Deleting"


class ProjectType(enum.StrEnum):
    """How the sources of a project lie; it decides nothing but what is shown."""

    MONOREPO = "monorepo"
    MULTI_REPOSITORY = "multi-repository"


class CredentialKind(enum.StrEnum):
    """How a private repository is entered."""

    TOKEN = "token"  # noqa: S105 - the word for a kind, not a token
    DEPLOY_KEY = "deploy-key"


@dataclass(frozen=True, slots=True)
class Project:
    """Components that form one application."""

    id: str
    organization_id: str
    name: str
    display_name: str
    description: str
    type: ProjectType
    state: Lifecycle
    created_at: datetime.datetime
    updated_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Component:
    """One unit of build and deployment: a directory of a repository.

    `repository` of None means the project's hosted repository.
    """

    id: str
    organization_id: str
    project_id: str
    project: str
    name: str
    display_name: str
    description: str
    type: ComponentType
    repository: str | None
    branch: str
    directory: str
    credential: str | None
    build_configs: Mapping[str, str]
    build_environment: Mapping[str, str]
    auto_build: bool
    auto_deploy: bool
    state: Lifecycle
    created_at: datetime.datetime
    updated_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Credential:
    """How to read private repositories; the value itself is sealed and only opened for a builder."""

    id: str
    organization_id: str
    name: str
    display_name: str
    kind: CredentialKind
    username: str
    sealed: str = field(repr=False)
    created_at: datetime.datetime
    updated_at: datetime.datetime

    @property
    def context(self) -> str:
        """What the sealed value is bound to."""
        return credential_context(self.organization_id, self.name)


def credential_context(organization_id: str, name: str) -> str:
    """Returns what a credential's sealed value is bound to."""
    return f"credential/{organization_id}/{name}"


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a row may not go yet: who needs it, and for what."""

    row_id: str
    holder: str
    reason: str


def check_description(value: str) -> str:
    """Returns a description of bounded length without control characters; line breaks become spaces."""
    return check_text("description", " ".join(value.split()), MAX_DESCRIPTION)


def check_repository(url: str, *, files_allowed: bool = False) -> str:
    """Returns a repository URL that a builder may be sent to; raises `Invalid`.

    `files_allowed` is the operator's setting for `file://` URLs, which reach
    into the builder's own disk, and for addresses of the builder's own machine.
    What a name resolves to is checked where it is fetched.
    """
    where = "repository.url"
    if len(url) > MAX_URL or any(sign.isspace() or not sign.isprintable() for sign in url):
        raise invalid_field(where, f"must have at most {MAX_URL} characters and no spaces")
    if _SCP.fullmatch(url) and "://" not in url:
        if not files_allowed:
            _check_host(url.partition(":")[0].rpartition("@")[2])
        return url
    schemes = ("https", "http", "ssh", *(("file",) if files_allowed else ()))
    shown = _USER_INFORMATION.sub("", url)
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise invalid_field(where, "is not a URL", given=shown) from error
    if parts.scheme not in schemes:
        raise invalid_field(
            where,
            "has a scheme that is not allowed",
            given=shown,
            allowed=schemes,
            hint=_scheme_hint(url),
        )
    if parts.scheme != "file" and not parts.hostname:
        raise invalid_field(where, "names no host", given=shown)
    if parts.hostname and not files_allowed:
        _check_host(parts.hostname)
    if parts.password is not None or (parts.username is not None and parts.scheme != "ssh"):
        raise invalid_field(
            where,
            "carries a user name or password",
            hint="`minuet create credential <credential> --token`, then name it on the component",
        )
    if parts.query or parts.fragment or port == 0 or not parts.path.strip("/"):
        raise invalid_field(where, "must be a plain repository URL with a path", given=shown)
    return url


def _check_host(host: str) -> None:
    """Raises `Invalid` for an address that means the builder's own machine, or the one it runs on."""
    name = host.rstrip(".").lower()
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        is_own = (
            name == "localhost" or name.endswith((".localhost", ".internal")) or _NUMBERS.fullmatch(name) is not None
        )
    else:
        mapped = getattr(address, "ipv4_mapped", None) or address
        is_own = mapped.is_loopback or mapped.is_link_local or mapped.is_unspecified or mapped.is_multicast
    if is_own:
        raise invalid_field(
            "repository.url",
            "names a host that builds may not reach",
            given=host,
            hint="an operator allows repositories of this machine by a setting of the server",
        )


def _scheme_hint(url: str) -> str | None:
    if url.startswith("file:"):
        return "an operator allows file URLs by a setting of the server"
    return None if "://" in url else "write it as https://host/owner/name.git"


def check_branch(branch: str) -> str:
    """Returns a branch name that git accepts and that cannot be mistaken for an option."""
    parts = branch.split("/")
    odd = ".." in branch or "@{" in branch or any(not part or part.endswith((".lock", ".")) for part in parts)
    if len(branch) > MAX_BRANCH or not _BRANCH.fullmatch(branch) or odd:
        raise invalid_field("repository.branch", "is not a branch name", given=branch)
    return branch


def check_directory(directory: str) -> str:
    """Returns the directory relative to the repository's root, `.` for the root itself."""
    path = PurePosixPath(directory.lstrip("/") or ".")
    bad = len(directory) > MAX_PATH or ".." in path.parts or ".git" in path.parts or not directory.isprintable()
    if bad or "\\" in directory:
        raise invalid_field("repository.directory", "must be a directory inside the repository", given=directory)
    return str(path)


def check_build_configs(configs: Mapping[str, str]) -> dict[str, str]:
    """Returns build configs with known keys and bounded values; raises `Invalid` with the nearest key."""
    for key, value in configs.items():
        if key not in BUILD_CONFIG_KEYS:
            raise unknown_key("buildConfigs", key, BUILD_CONFIG_KEYS)
        check_text(f"buildConfigs.{key}", value, MAX_CONFIG_VALUE)
    port = configs.get("port")
    if port is not None and not (port.isascii() and port.isdigit() and 1 <= int(port) <= _HIGHEST_PORT):
        raise invalid_field("buildConfigs.port", f"must be a number from 1 to {_HIGHEST_PORT}", given=port)
    return {key: value for key, value in configs.items() if value}


def check_build_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Returns build-time variables with legal names, bounded in number and size."""
    if len(variables) > MAX_BUILD_VARIABLES:
        raise invalid_field("buildEnvironment", f"holds {len(variables)} variables, at most {MAX_BUILD_VARIABLES}")
    for name, value in variables.items():
        if len(name) > MAX_BRANCH or not _VARIABLE.fullmatch(name):
            raise invalid_field(f"buildEnvironment.{name[:60]}", "is not a legal name", hint="letters, digits and _")
        if len(value) > MAX_CONFIG_VALUE or "\x00" in value:
            raise invalid_field(f"buildEnvironment.{name}", f"must have at most {MAX_CONFIG_VALUE} characters")
    return dict(variables)


def is_touched(component_directory: str, changed: tuple[str, ...]) -> bool:
    """Whether one of the changed paths lies in the component's directory."""
    if component_directory == ".":
        return bool(changed)
    return any(path == component_directory or path.startswith(f"{component_directory}/") for path in changed)
