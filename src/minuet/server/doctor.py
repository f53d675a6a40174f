"""What `minuet doctor` finds on this machine: each finding with what is lost and what helps."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minuet.kernel.errors import MinuetError
from minuet.server import installation, ports, survivors
from minuet.server.installation import Installation
from minuet.server.launching import LauncherProcess


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
    "ssh": ("private repositories cannot be read with a deploy key", "install the package openssh-client"),
}
_DISK_BYTES = 2 * 1024**3


def examine(data: Path) -> list[Finding]:
    """Looks at everything; the order is the order of importance."""
    try:
        chosen, file = installation.load(data, {}), []
    except MinuetError as error:
        chosen, file = Installation(), [Finding("settings", False, error.message, error.hint or "")]
    tools = [_tool(name) for name in _TOOLS]
    return [*file, _isolation(data, chosen), *tools, _python(), _disk(data), _envoy(chosen), *_ports(data, chosen)]


def as_text(findings: list[Finding]) -> str:
    lines = []
    for finding in findings:
        lines.append(f"{'ok ' if finding.fine else 'BAD'} {finding.what}: {finding.detail}")
        if not finding.fine and finding.help:
            lines.append(f"      -> {finding.help}")
    return "\n".join(lines)


def _isolation(data: Path, chosen: Installation) -> Finding:
    """The class in force as the running launcher tells it; where none runs, the class that a start would choose."""
    try:
        found, tense = asyncio.run(_in_force(data)), "in force"
        if found is None:
            found, tense = _would_be(chosen), "would be in force"
    except MinuetError as error:
        return Finding("isolation", False, error.message, error.hint or "")
    detail = f"class `{found['isolation']}` {tense}, control groups `{found['cgroups']}`"
    if found["missing"]:
        return Finding(
            "isolation", False, f"{detail}; missing: {'; '.join(found['missing'])}", "run it as root on Linux"
        )
    return Finding("isolation", True, detail)


async def _in_force(data: Path) -> dict[str, Any] | None:
    process = LauncherProcess(data)
    return await process.client.isolation() if await process.answers() else None


def _would_be(chosen: Installation) -> dict[str, Any]:
    from minuet.launcher import cgroups, probe

    found = probe.probe(chosen.isolation or "auto", cgroups.detect("doctor"))
    return {"isolation": found.isolation, "cgroups": found.cgroups, "missing": found.missing}


def _ports(data: Path, chosen: Installation) -> list[Finding]:
    """Whether the platform could listen; one that runs stands in its own doors."""
    if survivors.of(data):
        return [Finding("ports", True, "the platform runs and holds them")]
    found = []
    for flag, host, port in ports.doors(chosen):
        try:
            why = ports.obstacle(host, port)
        except MinuetError as error:
            why = error.message
        free = f"{host}:{port} is free"
        detail = f"{host}:{port} cannot be listened on: {why}" if why else free
        found.append(Finding(f"port of {flag}", why is None, detail, f"choose another one: `minuet up` takes {flag}"))
    return found


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


def _envoy(chosen: Installation) -> Finding:
    from minuet.gateway import envoy

    try:
        return Finding("envoy", True, envoy.binary(chosen.envoy))
    except MinuetError as error:
        return Finding("envoy", False, error.message, error.hint or "")
