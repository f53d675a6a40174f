"""Which process a fault hits: the parts of a platform, and of one component's instance, by pid."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.given.platform import Platform

ROLES = ("server", "builder", "agent")


def kill(pid: int) -> None:
    """`kill -9`."""
    os.kill(pid, signal.SIGKILL)


def supervisor(platform: Platform) -> int:
    return int((platform.data / "supervisor.lock").read_text())


def launcher(platform: Platform) -> int:
    """The launcher itself; its shims show the same command line, so it is the one that is no shim."""
    marked = {pid for pid, command in platform.processes().items() if "minuet launcher --settings" in command}
    shims = {_state(path)["shim"]["pid"] for path in _states(platform)}
    return min(marked - shims)


def role(platform: Platform, name: str) -> int:
    """Server, builder, agent, or the gateway's shim by the name `gateway`."""
    mark = f"minuet {name} --settings"
    found = [pid for pid, command in platform.processes().items() if mark in command]
    assert found, f"no process of {name}: {platform.processes()}"
    return min(found)


def envoy(platform: Platform) -> int:
    """Envoy lives in a session of its own, below the gateway's shim or adopted by it."""
    found = [pid for pid, command in platform.processes().items() if "envoy -c bootstrap.json" in command]
    assert len(found) == 1, found
    return found[0]


def instances(platform: Platform, component: str, environment: str = "Development") -> list[dict[str, Any]]:
    """What the shims of a component's running instances wrote last; one that goes this very moment is left out."""
    state = platform.json("describe", "environment", environment, "--component", component, "--project", "shop")
    folder = platform.data / "plane/instances"
    found = []
    for item in state["instances"]:
        with contextlib.suppress(FileNotFoundError):
            found.append(_state(folder / item["id"] / "state.json"))
    return [told for told in found if told["phase"] == "running"]


def shim(platform: Platform, component: str) -> int:
    pid: int = instances(platform, component)[0]["shim"]["pid"]
    return pid


def application(platform: Platform, component: str) -> int:
    """The program itself, as this machine sees it: the innermost child of its sandbox."""
    return program(instances(platform, component)[0])


def program(state: Mapping[str, Any]) -> int:
    """The same for one instance by what its shim wrote."""
    pid: int = state["application"]["pid"]
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid


def _states(platform: Platform) -> list[Path]:
    return [path for path in (platform.data / "plane/instances").glob("*/state.json") if path.exists()]


def _state(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found
