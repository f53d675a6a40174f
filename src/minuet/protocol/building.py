"""What control plane and builder say to each other over the builder's part of the API.

The builder registers, leases work by long polling, reports phases while it
runs, and completes. Logs stay with the builder; the control plane passes them on.
"""

from __future__ import annotations

import enum

from pydantic import Field

from minuet.protocol.base import Document
from minuet.protocol.descriptor import Descriptor

MAX_ASKED = 500
"""Builds, or projects, of one question whether they still exist."""


class PhaseName(enum.StrEnum):
    FETCH = "fetch"
    DETECT = "detect"
    PLAN = "plan"
    RESTORE = "restore"
    BUILD = "build"
    EXPORT = "export"


class PhaseState(enum.StrEnum):
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"


class Phase(Document):
    """One phase of a build, with the seconds it took and what it decided."""

    name: PhaseName
    state: PhaseState
    seconds: float = 0.0
    message: str = ""


class BuildpackOffer(Document):
    """A buildpack this builder has, for which component types, and the versions it can obtain."""

    name: str
    versions: tuple[str, ...] = ()
    default_version: str | None = None
    component_types: tuple[str, ...]
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


class Registration(Document):
    """Builder: who I am since this start; leases of an earlier `incarnation` are released."""

    incarnation: str
    version: str
    url: str
    fingerprint: str | None = None
    public_key: str
    isolation: str
    buildpacks: tuple[BuildpackOffer, ...]


class Registered(Document):
    """Server: accepted. `signing_key` verifies tickets; seconds are for renewals."""

    signing_key: str
    lease_seconds: float = 30.0


class RepositoryCredential(Document):
    """How to read a private repository; only ever on the link, never stored by the builder."""

    username: str = "git"
    token: str | None = None
    deploy_key: str | None = None


class BuildLimits(Document):
    """Limits of one build. Bytes and seconds."""

    memory: int = 3 * 1024**3
    disk: int = 4 * 1024**3
    seconds: float = 900.0
    processes: int = 512
    log_bytes: int = 8 * 1024**2


class BuildOrder(Document):
    """Server: build this. `repository` of None means the project's hosted repository.

    `config` holds the build configs as given (`buildpack`, `buildPackLangVersion`,
    `port`, `runCommand`, `buildCommand`, `outputDirectory`, `nodeVersion`);
    `environment` build-time variables. `commit` may name a commit, else the head of `branch`.
    """

    lease: str
    build: str
    organization: str
    organization_id: str
    project: str
    project_id: str
    component: str
    component_id: str
    component_type: str
    branch: str
    repository: str | None = None
    commit: str | None = None
    directory: str = "."
    config: dict[str, str] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)
    credential: RepositoryCredential | None = None
    limits: BuildLimits = BuildLimits()


class Progress(Document):
    """Builder: where the build stands; also renews the lease. Answer says if it was cancelled."""

    commit: str | None = None
    commit_message: str | None = None
    commit_author: str | None = None
    phases: tuple[Phase, ...] = ()


class ProgressAnswer(Document):
    cancelled: bool = False


class Belongings(Document):
    """Builder: do these builds and projects still exist? Answer: those that do. At most `MAX_ASKED` of each."""

    builds: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()


class BuiltArtifact(Document):
    """The signed manifest and where its layers go; `sbom` is the digest of the CycloneDX document."""

    digest: str
    manifest: str
    signature: str
    size: int
    layers: tuple[dict[str, str | int], ...]
    sbom: str
    command: str
    port: int | None = None
    toolchain: str = ""
    environment: dict[str, str] = Field(default_factory=dict)


class BuildResult(Document):
    """Builder: the end. Either `artifact`, or `reason` (of the catalogue) with message and log tail."""

    commit: str | None = None
    commit_message: str | None = None
    commit_author: str | None = None
    phases: tuple[Phase, ...] = ()
    artifact: BuiltArtifact | None = None
    descriptor: Descriptor = Descriptor()
    warnings: tuple[str, ...] = ()
    reason: str = "Succeeded"
    message: str = ""
    log_tail: tuple[str, ...] = ()
