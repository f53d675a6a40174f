"""What stands between a manifest and what is there. Pure: two documents in, steps out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from minuet.cli import config_sources, health_checks, manifest
from minuet.kernel.errors import Conflict, Invalid

Json = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One call that is needed, and the lines that tell it. No lines, no call; `kept` is told and changes nothing."""

    title: str
    lines: list[str] = field(default_factory=list)
    body: Json = field(default_factory=dict)
    creates: bool = False
    kept: list[str] = field(default_factory=list)

    @property
    def changes(self) -> bool:
        return self.creates or bool(self.lines)


def project(wanted: manifest.Project, found: Json | None) -> Step:
    title = f"project {wanted.name}"
    body = wanted.model_dump(by_alias=True, exclude_none=True, exclude={"kind"})
    if found is None:
        return Step(title, _all(body), body, creates=True)
    change: Json = {key: body[key] for key in ("displayName", "description") if key in body and body[key] != found[key]}
    return Step(title, _changed(found, change), change)


def component(wanted: manifest.Component, found: Json | None) -> Step:
    """Raises `Conflict` for a type, which cannot change."""
    title = f"component {wanted.project}/{wanted.name}"
    body = wanted.model_dump(by_alias=True, exclude_none=True, exclude={"kind", "project"})
    body["buildConfigs"] = {key: str(value) for key, value in body["buildConfigs"].items()}
    body["repository"] = wanted.repository.model_dump(by_alias=True)
    if found is None:
        return Step(title, _all(body), body, creates=True)
    if found["type"] != wanted.type:
        raise Conflict(f"{title} is a {found['type']}, which cannot become a {wanted.type}", code="TypeFixed")
    change = {key: value for key, value in body.items() if key not in ("name", "type") and found.get(key) != value}
    return Step(title, _changed(found, change), change)


def configuration(
    wanted: manifest.Configuration, found: Json, environment: Callable[[str], str | None], *, prune: bool
) -> Step:
    """Sets what the manifest names; removes what it does not only to `prune`, because absence is no wish.

    Raises `Invalid` for a new secret whose value is not in the shell's environment.
    """
    title = f"configuration of {wanted.project}/{wanted.component} in {wanted.environment.lower()}"
    there = {entry["name"]: entry for entry in found["entries"]}
    entries = [{"name": name, "kind": "variable", "value": value} for name, value in wanted.variables.items()]
    entries += [
        {"name": config_sources.file_name(path), "kind": "file", "value": text, "mountPath": path}
        for path, text in wanted.files.items()
    ]
    setting = [entry for entry in entries if not _same(entry, there.get(entry["name"]))]
    setting += [
        {"name": name, "kind": "secret", "value": _value(name, source, environment)}
        for name, source in wanted.secrets.items()
        if name not in there
    ]
    kept = {entry["name"] for entry in entries} | set(wanted.secrets)
    others = [name for name, entry in there.items() if name not in kept and entry["kind"] in ("variable", "file")]
    removed = others if prune else []
    lines = [f"{'~' if entry['name'] in there else '+'} {entry['name']}" for entry in setting]
    lines += [f"- {name}" for name in removed]
    told = [] if prune else [f"! {name} is set and not in the file; --prune removes it" for name in others]
    body: Json = {"set": setting, "unset": removed}
    declared, check = found.get("health"), _check(wanted.health)
    if check is None and declared is not None and not prune:
        told.append("! a health check is set and not in the file; --prune removes it")
    elif check != declared:
        body["health"] = check
        lines.append(_health_line(declared, check))
    return Step(title, lines, body, kept=told)


def _check(wanted: manifest.HealthCheck | None) -> Json | None:
    """The check in the form that the API shows it in."""
    if wanted is None:
        return None
    path = "/" if wanted.path is None and wanted.kind == "http" else wanted.path
    return wanted.model_dump(mode="json", by_alias=True) | {"path": path}


def _health_line(declared: Json | None, check: Json | None) -> str:
    if check is None:
        return "- health check"
    new = health_checks.sentence(check)
    return (
        f"+ health check: {new}" if declared is None else f"~ health check: {health_checks.sentence(declared)} -> {new}"
    )


def deployment(wanted: manifest.Deployment, found: Json) -> Step:
    """A deployment is needed when another build or another number of instances runs."""
    title = f"deployment of {wanted.project}/{wanted.component} in {wanted.environment.lower()}"
    current = found.get("current") or {}
    lines = []
    if wanted.build is not None and wanted.build != current.get("build"):
        lines.append(f"~ build: {current.get('build') or 'none'} -> {wanted.build}")
    if not current and wanted.build is None:
        lines.append("+ build: the newest that succeeded")
    if wanted.replicas is not None and wanted.replicas != current.get("replicas"):
        lines.append(f"~ replicas: {current.get('replicas', 'none')} -> {wanted.replicas}")
    body: Json = {"environment": wanted.environment.lower(), "build": wanted.build, "replicas": wanted.replicas}
    if wanted.build is None and current:
        body["build"] = current.get("build")
    return Step(title, lines, {key: value for key, value in body.items() if value is not None}, creates=False)


def _same(entry: Json, there: Json | None) -> bool:
    if there is None or there["kind"] != entry["kind"]:
        return False
    return there.get("value") == entry["value"] and there.get("mountPath") == entry.get("mountPath")


def _value(name: str, source: manifest.SecretSource | None, environment: Callable[[str], str | None]) -> str:
    variable = source.from_environment if source else name
    value = environment(variable)
    if not value:
        raise Invalid(
            f"the secret {name} does not exist yet and its value is not in ${variable}",
            code="SecretMissing",
            hint=f"export {variable}=..., or set it with `minuet set config --secret {name}`",
        )
    return value


def _all(body: Json) -> list[str]:
    return [f"+ {key}: {_short(value)}" for key, value in body.items() if value not in (None, {}, "")]


def _changed(found: Json, change: Json) -> list[str]:
    return [f"~ {key}: {_short(found.get(key))} -> {_short(value)}" for key, value in change.items()]


def _short(value: Any) -> str:
    text = ", ".join(f"{k}={v}" for k, v in value.items() if v is not None) if isinstance(value, dict) else str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."  # noqa: PLR2004 - a line of a terminal
