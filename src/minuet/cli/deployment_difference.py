"""What stands between a Deployment and what runs: deploy, scale, suspend or resume. Pure.

Also the order of deployments: one to an earlier stage comes first, because a
release is promoted only after it was ready there.
"""

from __future__ import annotations

from collections.abc import Iterable

from minuet.cli import manifest
from minuet.cli.difference import Json, Step

NEWEST = "the newest that succeeded"
_DEFAULT = "default"


def deployment(wanted: manifest.Deployment, found: Json) -> Step:
    """The verbs that are needed, in order; what the document leaves out stays as it runs."""
    title = f"deployment of {wanted.project}/{wanted.component} in {wanted.environment}"
    current = found.get("current") or {}
    build = wanted.build or current.get("build")
    replicas = current.get("replicas") if wanted.replicas is None else wanted.replicas
    state = wanted.state or ("suspended" if replicas == 0 else current.get("state", "active"))
    lines = _lines(wanted, current, state)
    return Step(title, lines, verbs=tuple(_verbs(wanted, current, build, replicas, state)) if lines else ())


def _lines(wanted: manifest.Deployment, current: Json, state: str) -> list[str]:
    lines = []
    if not current and wanted.build is None:
        lines.append(f"+ build: {NEWEST}")
    if wanted.build is not None and wanted.build != current.get("build"):
        lines.append(f"~ build: {current.get('build') or 'none'} -> {wanted.build}")
    if wanted.replicas is not None and wanted.replicas != current.get("replicas"):
        lines.append(f"~ replicas: {current.get('replicas', 'none')} -> {wanted.replicas}")
    if state != current.get("state", "active"):
        lines.append(f"~ state: {current.get('state', 'none')} -> {state}")
    return lines


def _verbs(
    wanted: manifest.Deployment, current: Json, build: str | None, replicas: int | None, state: str
) -> Iterable[tuple[str, Json]]:
    """A suspended component cannot be scaled, so that it is deployed anew with another number and stopped again."""
    is_another = not current or build != current.get("build")
    is_scaled = bool(current) and replicas != current.get("replicas")
    was = current.get("state", "active")
    if is_another or (is_scaled and was == "suspended"):
        chosen = {"environment": wanted.environment, "build": build, "replicas": replicas}
        yield "deploy", {key: value for key, value in chosen.items() if value is not None}
        was = "suspended" if replicas == 0 else "active"
    elif is_scaled:
        yield "scale", {"replicas": replicas}
        was = "suspended" if replicas == 0 else "active"
    if state != was:
        yield "suspend" if state == "suspended" else "resume", {}


def way(pipelines: Iterable[Json], environment: str) -> tuple[str, ...]:
    """The environments before one, in order, by the pipeline that the server goes by: the default one first."""
    leading = sorted(
        (item for item in pipelines if environment in item["environments"]),
        key=lambda item: (item["name"] != _DEFAULT, item["name"]),
    )
    if not leading:
        return ()
    order = leading[0]["environments"]
    return tuple(order[: order.index(environment)])
