"""What stands between a Configuration and what is there: values by name, files by path. Pure.

A plain value is shown as it was and as it will be; of a secret nothing is ever
shown, and one that exists stays as it is.
"""

from __future__ import annotations

from minuet.cli import config_sources, health_checks, manifest
from minuet.cli.difference import Json, Step, Variables, described, secret_value, short

_HIDDEN = ("secret", "secret-file")


def configuration(
    wanted: manifest.Configuration, found: Json, environment: Variables, *, prune: bool, dry: bool = False
) -> Step:
    """Sets what the manifest names; removes what it does not only to `prune`, because absence is no wish.

    Raises `Invalid` for a secret that has to be made and whose value is nowhere.
    """
    title = f"configuration of {wanted.project}/{wanted.component} in {wanted.environment}"
    there = found["entries"]
    entries = _plain(wanted, there) + _secret(wanted, there)
    by_name = {entry["name"]: entry for entry in there}
    lines, setting, kept = [], [], []
    for entry, source in entries:
        old = by_name.get(entry["name"])
        if _is_so(entry, old):
            continue
        label = entry.get("mountPath") or entry["name"]
        if entry["kind"] in _HIDDEN:
            value = secret_value(label, source, entry["name"], environment, dry=dry)
            kept += [f"! {label} is not in {described(source, entry['name'])}"] if value is None else []
            entry["value"] = value or ""
        setting.append(entry)
        lines.append(_line(label, entry, old))
    named = {entry["name"] for entry, _ in entries}
    others = [entry for entry in there if entry["name"] not in named and entry["kind"] not in _HIDDEN]
    labels = [entry.get("mountPath") or entry["name"] for entry in others]
    if prune:
        lines += [f"- {label}" for label in labels]
    else:
        kept += [f"! {label} is set and not in the file; --prune removes it" for label in labels]
    body: Json = {"set": setting, "unset": [entry["name"] for entry in others] if prune else []}
    declared, check = found.get("health"), _check(wanted.health)
    if check is None and declared is not None and not prune:
        kept.append("! a health check is set and not in the file; --prune removes it")
    elif check != declared:
        body["health"] = check
        lines.append(_health_line(declared, check))
    return Step(title, lines, body, kept=kept)


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


def _plain(wanted: manifest.Configuration, there: list[Json]) -> list[tuple[Json, manifest.SecretSource | None]]:
    variables: list[Json] = [
        {"name": name, "kind": "variable", "value": value} for name, value in wanted.variables.items()
    ]
    files: list[Json] = [
        {"name": config_sources.entry_name(path, there), "kind": "file", "value": text, "mountPath": path}
        for path, text in wanted.files.items()
    ]
    return [(entry, None) for entry in (*variables, *files)]


def _secret(wanted: manifest.Configuration, there: list[Json]) -> list[tuple[Json, manifest.SecretSource | None]]:
    secrets: list[tuple[Json, manifest.SecretSource | None]] = [
        ({"name": name, "kind": "secret"}, source) for name, source in wanted.secrets.items()
    ]
    for path, source in wanted.secret_files.items():
        name = config_sources.entry_name(path, there)
        secrets.append(({"name": name, "kind": "secret-file", "mountPath": path}, source))
    return secrets


def _is_so(entry: Json, old: Json | None) -> bool:
    if old is None or old["kind"] != entry["kind"] or old.get("mountPath") != entry.get("mountPath"):
        return False
    return entry["kind"] in _HIDDEN or old.get("value") == entry["value"]


def _line(label: str, entry: Json, old: Json | None) -> str:
    return f"+ {label}: {_shown(entry)}" if old is None else f"~ {label}: {_shown(old)} -> {_shown(entry)}"


def _shown(entry: Json) -> str:
    if entry["kind"] in _HIDDEN:
        return "(secret)"
    value = entry.get("value") or ""
    return f"a file of {len(value)} characters" if entry["kind"] == "file" else short(value)
