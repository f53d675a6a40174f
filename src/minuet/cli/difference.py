"""What stands between a manifest and what is there. Pure: two documents in, steps out.

Only what a document says is compared; what it leaves out stays.
`configuration_difference.py` and `deployment_difference.py` hold those of two
kinds that are more than fields.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minuet.cli import config_sources, manifest
from minuet.kernel.errors import Conflict, Invalid

Json = dict[str, Any]
Variables = Callable[[str], str | None]
"""Returns the value of a variable of the shell, None if there is none."""

_LINE = 100
"""Longest value that a line shows, in characters."""


@dataclass(frozen=True)
class Step:
    """What is needed to make one document so, and the lines that tell it.

    Without lines nothing is done; `kept` is told and changes nothing. `body` is that
    of the one call, `verbs` are those of a deployment, each with its body.
    """

    title: str
    lines: list[str] = field(default_factory=list)
    body: Json = field(default_factory=dict)
    creates: bool = False
    kept: list[str] = field(default_factory=list)
    verbs: tuple[tuple[str, Json], ...] = ()

    @property
    def changes(self) -> bool:
        return self.creates or bool(self.lines)


def environment(wanted: manifest.Environment, found: Json | None) -> Step:
    """Raises `Conflict` for a data plane, which cannot change."""
    return _fields(f"environment {wanted.name}", wanted.given(), found, fixed=("dataPlane",))


def pipeline(wanted: manifest.Pipeline, found: Json | None) -> Step:
    return _fields(f"pipeline {wanted.name}", wanted.given(), found)


def project(wanted: manifest.Project, found: Json | None) -> Step:
    """Raises `Conflict` for a type, which cannot change."""
    return _fields(f"project {wanted.name}", wanted.given(), found, fixed=("type",))


def credential(wanted: manifest.Credential, found: Json | None, environment: Variables, *, dry: bool) -> Step:
    """The value is read for a new one only; raises `Conflict` for a type, which cannot change."""
    title = f"credential {wanted.name}"
    body = wanted.given("value", "type") | {"kind": wanted.type}
    if found is not None:
        return _fields(title, body, found, fixed=("kind",))
    step = _fields(title, body, None)
    if wanted.value is None:
        raise Invalid(
            f"the {title} does not exist yet, and nothing says where its value is",
            code="SecretMissing",
            hint="add `value: {fromEnvironment: ...}` or `value: {fromFile: ...}`",
        )
    key = "token" if wanted.type == "token" else "deployKey"
    value = secret_value(f"credential {wanted.name}", wanted.value, wanted.name, environment, dry=dry)
    kept = [] if value is not None else [f"! its value is not in {described(wanted.value)}"]
    step.body[key] = (value or "").strip() if wanted.type == "token" else value or ""
    return Step(title, [*step.lines, f"+ {key}: (secret)"], step.body, creates=True, kept=kept)


def component(wanted: manifest.Component, found: Json | None, *, prune: bool) -> Step:
    """Raises `Conflict` for a type, which cannot change."""
    title = f"component {wanted.project}/{wanted.name}"
    body = wanted.given("project")
    if "buildConfigs" in body:
        body["buildConfigs"] = {key: str(value) for key, value in body["buildConfigs"].items()}
    if found is None:
        return _fields(title, body, None)
    kept: list[str] = []
    for key in ("buildConfigs", "buildEnvironment"):
        if key in body:
            body[key], others = _merged(body[key], found[key], prune=prune, drops_empty=key == "buildConfigs")
            kept += [f"! {key}.{name} is set and not in the file; --prune removes it" for name in others]
    if "repository" in body:
        there = found["repository"]
        body["repository"] = {key: value for key, value in body["repository"].items() if there.get(key) != value}
        if not body["repository"]:
            del body["repository"]
    step = _fields(title, body, found, fixed=("type",))
    return Step(title, step.lines, step.body, kept=kept)


def secret_value(
    name: str, source: manifest.SecretSource | None, variable: str, environment: Variables, *, dry: bool
) -> str | None:
    """The value of a secret from where its document says, else from the shell's variable of its name.

    Raises `Invalid` if there is none, so that nothing is half applied; a dry run
    gets None for it, because it may run where secrets are not.
    """
    if source is not None and source.from_file is not None:
        if dry and not Path(source.from_file).exists():
            return None
        return config_sources.read(Path(source.from_file))
    chosen = variable if source is None or source.from_environment is None else source.from_environment
    value = environment(chosen)
    if value or dry:
        return value or None
    raise Invalid(
        f"the secret {name} does not exist yet and its value is not in ${chosen}",
        code="SecretMissing",
        hint=f"set the shell's variable {chosen}, or say with fromFile or fromEnvironment where the value is",
    )


def described(source: manifest.SecretSource | None, variable: str = "") -> str:
    """Where a value comes from, in words."""
    if source is not None and source.from_file is not None:
        return source.from_file
    return f"${variable if source is None else source.from_environment}"


def short(value: Any) -> str:
    """A value on one line of a terminal."""
    if isinstance(value, dict):
        value = ", ".join(f"{key}={each}" for key, each in value.items() if each is not None)
    elif isinstance(value, list):
        value = ", ".join(str(each) for each in value)
    text = str(value)
    return text if len(text) <= _LINE else f"{text[: _LINE - 3]}..."


def _fields(title: str, body: Json, found: Json | None, *, fixed: tuple[str, ...] = ()) -> Step:
    """The step for what is nothing but fields."""
    if found is None:
        lines = [f"+ {key}: {short(value)}" for key, value in body.items() if value not in (None, {}, "")]
        return Step(title, lines, body, creates=True)
    for key in fixed:
        if key in body and body[key] != found.get(key):
            raise Conflict(f"{title} has the {key} {found.get(key)}, which cannot become {body[key]}", code="TypeFixed")
    change = {key: value for key, value in body.items() if key != "name" and found.get(key) != value}
    lines = [f"~ {key}: {short(_there(found, key, value))} -> {short(value)}" for key, value in change.items()]
    return Step(title, lines, change)


def _there(found: Json, key: str, value: Any) -> Any:
    """What is there of a field; of a repository only what changes."""
    there = found.get(key)
    if key == "repository" and isinstance(there, dict):
        return {part: there.get(part) for part in value}
    return there


def _merged(wanted: Json, there: Json, *, prune: bool, drops_empty: bool) -> tuple[Json, list[str]]:
    """A map as it is to be as a whole, and the names in it that the document does not say."""
    others = [name for name in there if name not in wanted]
    merged = wanted if prune else there | wanted
    return {name: value for name, value in merged.items() if value or not drops_empty}, [] if prune else others
