"""The nouns as code: what a manifest may say, checked before anything is asked of a server.

One schema (`minuet schema` prints it) for `apply` and `export`. Several
documents may stand in one file, separated by `---`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from minuet.kernel import health
from minuet.kernel.errors import Invalid, Violation
from minuet.kernel.health import Limit, ProbeKind
from minuet.kernel.names import nearest

_MAX_BYTES = 4 * 1024 * 1024


class _Manifest(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Project(_Manifest):
    """A project."""

    kind: Literal["Project"]
    name: str
    display_name: str | None = None
    description: str | None = None


class Repository(_Manifest):
    """Where the source lies; without `url` it is the project's hosted repository."""

    url: str | None = None
    branch: str = "main"
    directory: str = "."
    credential: str | None = None


class Component(_Manifest):
    """A component: one directory of one repository."""

    kind: Literal["Component"]
    project: str
    name: str
    type: Literal["service", "web-application", "webhook", "event-handler"]
    display_name: str | None = None
    description: str | None = None
    repository: Repository = Repository()
    build_configs: dict[str, str | int] = Field(default_factory=dict)
    build_environment: dict[str, str] = Field(default_factory=dict)
    auto_build: bool = True
    auto_deploy: bool = False


class SecretSource(_Manifest):
    """Where a secret's value comes from when it is set for the first time: a variable of the shell."""

    from_environment: str


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

    What is not listed stays, unless `apply --prune` is asked to remove it. Secrets are listed by name. They are never written out, and one that exists
    is left as it is: its value cannot be compared.
    """

    kind: Literal["Configuration"]
    project: str
    component: str
    environment: str
    variables: dict[str, str] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict, description="Content by absolute path.")
    secrets: dict[str, SecretSource | None] = Field(default_factory=dict)
    health: HealthCheck | None = None


class Deployment(_Manifest):
    """Which build runs in an environment, and how many instances of it."""

    kind: Literal["Deployment"]
    project: str
    component: str
    environment: str
    build: str | None = None
    replicas: int | None = Field(None, ge=0)


Manifest = Annotated[Project | Component | Configuration | Deployment, Field(discriminator="kind")]
ORDER = ("Project", "Component", "Configuration", "Deployment")
_KINDS: dict[str, type[_Manifest]] = {
    "Project": Project,
    "Component": Component,
    "Configuration": Configuration,
    "Deployment": Deployment,
}


def schema() -> dict[str, Any]:
    """The JSON Schema of one document."""
    return TypeAdapter(Manifest).json_schema(by_alias=True)


def read(places: tuple[str, ...]) -> list[Any]:
    """Reads files, directories of files, or `-`; sorted so that what others need comes first."""
    found = [manifest for place in places for name, text in _texts(place) for manifest in _parse(name, text)]
    return sorted(found, key=lambda manifest: ORDER.index(manifest.kind))


def _texts(place: str) -> Iterator[tuple[str, str]]:
    if place == "-":
        yield "standard input", _bounded("standard input", sys.stdin.read(_MAX_BYTES + 1))
        return
    path = Path(place)
    if not path.exists():
        raise Invalid(f"{place} does not exist", code="FileUnreadable")
    for file in sorted((*path.glob("*.yaml"), *path.glob("*.yml"))) if path.is_dir() else [path]:
        try:
            with file.open(encoding="utf-8") as opened:
                text = opened.read(_MAX_BYTES + 1)
        except (OSError, UnicodeDecodeError) as error:
            raise Invalid(f"{file} cannot be read as text: {error}", code="FileUnreadable") from error
        yield str(file), _bounded(str(file), text)


def _bounded(name: str, text: str) -> str:
    if len(text) > _MAX_BYTES:
        raise Invalid(f"{name} is longer than {_MAX_BYTES} characters", code="FileTooLong")
    return text


def _parse(name: str, text: str) -> Iterator[Any]:
    try:
        documents = list(yaml.load_all(text, _Loader))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Invalid(f"{name} is not valid YAML: {str(error)[:300]}", code="InvalidManifest") from error
    for number, document in enumerate(documents, 1):
        if document is not None:
            yield _check(f"{name}, document {number}", document)


def _check(where: str, document: Any) -> Any:
    kind = document.get("kind") if isinstance(document, dict) else None
    model = _KINDS.get(str(kind))
    if model is None:
        close = nearest(str(kind), ORDER)
        hint = f"did you mean {close}?" if close else f"one of {', '.join(ORDER)}"
        violation = Violation("kind", "is not a known kind", str(kind), ORDER)
        raise Invalid(
            f"{where}: the kind {kind} is not known", hint=hint, violations=[violation], code="InvalidManifest"
        )
    try:
        return model.model_validate(document)
    except ValidationError as error:
        violations = [_violation(model, item) for item in error.errors()]
        first = violations[0]
        raise Invalid(
            f"{where}: {first.field}: {first.message}", violations=violations, code="InvalidManifest"
        ) from error


def _violation(model: type[_Manifest], item: Any) -> Violation:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = _keys(model, item["loc"][:-1])
        close = nearest(str(item["loc"][-1]), known)
        return Violation(path, f"is not known{f'; did you mean {close}?' if close else ''}", None, known)
    is_bare = item["type"] == "string_type" and isinstance(item["input"], (bool, int, float))
    return Violation(path, f"{item['msg']}{'; write it in quotes' if is_bare else ''}", str(item["input"])[:200])


def _keys(model: type[BaseModel], place: tuple[int | str, ...]) -> tuple[str, ...]:
    """The keys that may stand at a place inside a document."""
    for part in place:
        annotation = next((field.annotation for name, field in model.model_fields.items() if field.alias == part), None)
        found = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type)]
        inner = next((one for one in found if issubclass(one, BaseModel)), None)
        if inner is None:
            return ()
        model = inner
    return tuple(field.alias or name for name, field in model.model_fields.items())


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"the key {key} stands twice", node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
