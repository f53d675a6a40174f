"""Desired state: an ordered, signed log of typed documents per data plane.

A revision is a list of changes (put or tombstone). A snapshot is every live
document at one revision. The agent makes either durable before it acknowledges.
Absence is never deletion: only a tombstone removes.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from minuet.kernel.canonical import canonical_json, digest_of
from minuet.kernel.health import ProbeKind
from minuet.protocol.base import Document

Port: TypeAlias = Annotated[int, Field(ge=1, le=65535)]


class Layer(Document):
    """One tar of an artifact, and where the sandbox sees its content, read-only."""

    digest: str
    size: int
    target: str


class Artifact(Document):
    """What a build made: a signed manifest that names its layers by digest.

    `manifest` is the exact text whose digest is `digest` and which `signature`
    (base64 Ed25519) signs under `public_key`; `store` is the base URL of the
    builder's store, `fingerprint` pins its certificate, and `ticket` is the
    server's signed permission to fetch it.
    """

    digest: str
    manifest: str
    signature: str
    public_key: str
    store: str
    fingerprint: str | None = None
    ticket: str
    layers: tuple[Layer, ...]


class SealedValue(Document):
    """A secret as a reference with a version and a ciphertext for this data plane's key only."""

    version: int
    ciphertext: str


class EnvironmentVariable(Document):
    """One variable of the application: a plain value or a sealed one, never both."""

    name: str
    value: str | None = None
    sealed: SealedValue | None = None


class MountedFile(Document):
    """One file placed over the application's tree, read-only, at an absolute path."""

    path: str
    content: str | None = None
    sealed: SealedValue | None = None


class Probe(Document):
    """The health check that somebody declared, with the port it goes to. Times in seconds.

    It decides for the life of an instance: `success_threshold` successes in a row
    let it have requests, `failure_threshold` failures in a row take them away.
    """

    kind: ProbeKind = ProbeKind.HTTP
    port: Port
    path: str = "/"
    failure_threshold: int = 3
    success_threshold: int = 1
    initial_delay: float = 0.0
    period: float = 30.0
    timeout: float = 10.0


class Resources(Document):
    """Limits of one instance. CPU in cores, memory and disk in bytes."""

    cpu: float = 0.5
    memory: int = 1024 * 1024 * 1024
    disk: int = 1024 * 1024 * 1024
    processes: int = 256


class Route(Document):
    """One public endpoint: requests for `host` below `base_path` go to `port`.

    `base_path` starts with `/` and has no trailing one (except `/` itself).
    With `strip_base_path` the application sees the path without it.
    """

    endpoint: str
    host: str
    base_path: str
    port: Port
    strip_base_path: bool = False
    protocol: Literal["http", "websocket", "grpc"] = "http"


class Workload(Document):
    """One component in one environment, complete: what `render` makes and the agent runs.

    `key` is `<component id>/<environment id>`; the names are for people and log
    lines. `generation` counts deployments of this component in this environment;
    `deployment` is the record's id. `restart` changes when a person asks for a
    fresh start of the same content. Without `health`, an instance is ready when
    its ports accept connections and those that speak HTTP gave a first answer.
    """

    kind: Literal["workload"] = "workload"
    key: str
    organization: str
    project: str
    component: str
    environment: str
    generation: int
    deployment: str
    release: str
    restart: str = ""
    artifact: Artifact
    command: str
    environment_variables: tuple[EnvironmentVariable, ...] = ()
    files: tuple[MountedFile, ...] = ()
    ports: tuple[Port, ...] = ()
    replicas: int = 1
    resources: Resources = Resources()
    health: Probe | None = None
    routes: tuple[Route, ...] = ()
    start_timeout: float = 60.0
    stop_grace: float = 10.0
    drain_timeout: float = 30.0

    @property
    def template(self) -> str:
        """Digest of all that makes an instance what it is; instances with another one are replaced.

        Replicas, routes and bookkeeping are left out: changing them restarts nothing.
        """
        outside = {
            "generation",
            "deployment",
            "replicas",
            "routes",
            "drain_timeout",
            "start_timeout",
            "release",
        }
        content = self.model_dump(mode="json", exclude=outside)
        content["artifact"] = self.artifact.digest
        return digest_of(canonical_json(content))[7:23]


class Tombstone(Document):
    """Removes the document it names; `confirmed_by` carries the request of the person who asked."""

    kind: Literal["tombstone"] = "tombstone"
    key: str
    removes: Literal["workload"] = "workload"
    confirmed_by: str | None = None


Change: TypeAlias = Annotated[Workload | Tombstone, Field(discriminator="kind")]


class Unreadable(Document):
    """A document that this version cannot read; made by the receiver, never sent."""

    key: str
    generation: int
    body: str
    problem: str


class Revision(Document):
    """What the log gains in one step. `snapshot` says that `changes` is everything there is.

    Epochs rise only when an operator restores the control plane from a backup;
    within an epoch, revisions rise by one, and `previous` names the revision a
    delta builds on. `plane` keeps one plane's revision from being replayed to another.
    `digest` names the log up to and including this revision: a snapshot carries it,
    and of a delta it is the digest of its exact bytes, which the receiver works out.
    `previous_digest` is that of the revision a delta builds on. Both are missing where
    an older peer, or a new epoch, knows none, and then nothing is compared.
    `unreadable` is what the receiver set aside of `changes`; it never travels.
    """

    plane: str
    epoch: int
    revision: int
    previous: int
    previous_digest: str | None = None
    digest: str | None = None
    snapshot: bool = False
    changes: tuple[Change, ...] = ()
    unreadable: tuple[Unreadable, ...] = Field(default=(), exclude=True)


class Signed(Document):
    """A revision's exact bytes, and the control plane's Ed25519 signature over them."""

    payload: str
    signature: str
