"""The nouns as code: what a manifest may say, in the form in which a server keeps it.

One schema (`minuet schema` prints it) for `apply` and `export`. A field that a
document leaves out is unset, which is not the same as its default: unset means
that it stays as it is. Values are normalised here as the server normalises
them, so that a document that was applied equals what is there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, model_validator
from pydantic.alias_generators import to_camel

from minuet.kernel import health, names
from minuet.kernel.errors import Invalid
from minuet.kernel.health import Limit, ProbeKind


def _checked(check: Callable[[str], str]) -> Callable[[str], str]:
    """A check of the kernel in the form that pydantic tells with the field it is about."""

    def told(value: str) -> str:
        try:
            return check(value)
        except Invalid as error:
            raise ValueError(error.message.partition(": ")[2] or error.message) from error

    return told


def one_line(text: str) -> str:
    """A description without line breaks, as a server keeps it."""
    return " ".join(text.split())


def directory(path: str) -> str:
    """A directory relative to the repository's root, as a server keeps it."""
    return str(PurePosixPath(path.lstrip("/") or "."))


Name = Annotated[str, AfterValidator(_checked(lambda value: names.check_name("name", value)))]
EnvironmentName = Annotated[str, AfterValidator(str.lower), AfterValidator(Name.__metadata__[0].func)]
DisplayName = Annotated[str, AfterValidator(_checked(lambda value: names.check_text("displayName", value)))]
Description = Annotated[str, AfterValidator(one_line), Field(max_length=names.MAX_DESCRIPTION)]
Directory = Annotated[str, AfterValidator(directory)]
MountPath = Annotated[str, Field(pattern="^/")]


class _Manifest(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    def given(self, *without: str) -> dict[str, Any]:
        """What the document says, by the names of the API, and nothing that it leaves out."""
        said = self.model_dump(by_alias=True, exclude_unset=True, exclude={"kind", *without})
        return {key: value for key, value in said.items() if value is not None}


class SecretSource(_Manifest):
    """Where a secret's value comes from when it is set for the first time: a variable of the shell, or a file."""

    from_environment: str | None = None
    from_file: str | None = Field(None, description="A path, from the directory that `apply` runs in.")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.from_environment is None) == (self.from_file is None):
            raise ValueError("takes exactly one of fromEnvironment and fromFile")
        return self


class Environment(_Manifest):
    """An environment on a data plane, which never changes."""

    kind: Literal["Environment"]
    name: EnvironmentName
    display_name: DisplayName | None = None
    data_plane: str = "default"
    critical: bool = False


class Pipeline(_Manifest):
    """The environments a release passes through, in order."""

    kind: Literal["Pipeline"]
    name: Name
    display_name: DisplayName | None = None
    environments: list[EnvironmentName] = Field(min_length=1)


class Credential(_Manifest):
    """A credential for private repositories. Its value is read when it is made, and never compared or written out."""

    kind: Literal["Credential"]
    name: Name
    type: Literal["token", "deploy-key"]
    display_name: DisplayName | None = None
    username: str = "git"
    value: SecretSource | None = None


class Project(_Manifest):
    """A project; its type never changes."""

    kind: Literal["Project"]
    name: Name
    type: Literal["monorepo", "multi-repository"] = "monorepo"
    display_name: DisplayName | None = None
    description: Description | None = None


class Repository(_Manifest):
    """Where the source lies; without `url` it is the project's hosted repository."""

    url: str | None = None
    branch: str = "main"
    directory: Directory = "."
    credential: str | None = None


class Component(_Manifest):
    """A component: one directory of one repository."""

    kind: Literal["Component"]
    project: Name
    name: Name
    type: Literal["service", "web-application", "webhook", "event-handler"]
    display_name: DisplayName | None = None
    description: Description | None = None
    repository: Repository = Repository()
    build_configs: dict[str, str | int] = Field(default_factory=dict, description="An empty value removes a key.")
    build_environment: dict[str, str] = Field(default_factory=dict)
    auto_build: bool = True
    auto_deploy: bool = False


def _number(limit: Limit) -> Any:
    return Field(limit.default, ge=limit.least, le=limit.most, description=limit.meaning)


class HealthCheck(_Manifest):
    """How an instance shows that it can take requests. Times in seconds."""

    kind: ProbeKind = ProbeKind.HTTP
    port: int | None = Field(None, ge=1, le=65535, description="Port of an endpoint; that of the first that fits.")
    path: str | None = Field(None, max_length=health.MAX_PATH, description="What a GET asks for; / if not given.")
    failure_threshold: int = _number(health.FAILURE_THRESHOLD)
    success_threshold: int = _number(health.SUCCESS_THRESHOLD)
    initial_delay: int = _number(health.INITIAL_DELAY)
    period: int = _number(health.PERIOD)
    timeout: int = _number(health.TIMEOUT)


class Configuration(_Manifest):
    """Variables, files, secrets and the health check of a component in an environment.

    What is not listed stays, unless `apply --prune` is asked to remove it. Secrets
    are listed by name. They are never written out, and one that exists is left as
    it is: its value cannot be compared. Without a source, the value of a new secret
    is that of the shell's variable of the same name.
    """

    kind: Literal["Configuration"]
    project: Name
    component: Name
    environment: EnvironmentName
    variables: dict[str, str] = Field(default_factory=dict)
    files: dict[MountPath, str] = Field(default_factory=dict, description="Content by absolute path.")
    secrets: dict[str, SecretSource | None] = Field(default_factory=dict)
    secret_files: dict[MountPath, SecretSource | None] = Field(
        default_factory=dict, description="Source by absolute path."
    )
    health: HealthCheck | None = None

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        for plain, hidden in ((self.variables, self.secrets), (self.files, self.secret_files)):
            if twice := sorted(set(plain) & set(hidden)):
                raise ValueError(f"{', '.join(twice)} is both plain and secret")
        return self


class Deployment(_Manifest):
    """Which build runs in an environment, how many instances of it, and whether they run at all."""

    kind: Literal["Deployment"]
    project: Name
    component: Name
    environment: EnvironmentName
    build: str | None = None
    replicas: int | None = Field(None, ge=0)
    state: Literal["active", "suspended"] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.replicas == 0 and self.state == "active":
            raise ValueError("replicas: 0 means suspended, and state says active")
        return self


Manifest = Annotated[
    Environment | Pipeline | Credential | Project | Component | Configuration | Deployment,
    Field(discriminator="kind"),
]
KINDS: dict[str, type[_Manifest]] = {
    kind.__name__: kind for kind in (Environment, Pipeline, Credential, Project, Component, Configuration, Deployment)
}
"""Every kind, in the order in which one needs the other."""


def schema() -> dict[str, Any]:
    """The JSON Schema of one document."""
    return TypeAdapter(Manifest).json_schema(by_alias=True)
