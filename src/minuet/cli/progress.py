"""Following builds and deployments: one line a phase, elapsed at its end, no spinner."""

from __future__ import annotations

import time
from typing import Any

from minuet.cli import screen
from minuet.client.api import Api
from minuet.kernel.errors import NotReady

BUILD_ENDED = ("Succeeded", "Failed", "Cancelled")
SETTLED = ("Ready", "Failed", "Suspended", "Superseded")
_STEPS = (
    ("Accepted", "Accepted"),
    ("Delivered", "Delivered to the data plane"),
    ("Fetched", "Artifact fetched and verified"),
    ("Started", "Started"),
    ("Healthy", "Healthy"),
    ("Routed", "Routed"),
)


def follow_build(server: Api, path: str, identifier: str) -> dict[str, Any]:
    """Streams a build's log and returns the ended build."""
    phase = ""
    for event, line in server.events(f"{path}/logs", follow=True):
        if event != "line":
            continue
        if line.get("phase") and line["phase"] != phase:
            phase = line["phase"]
            screen.say(f"[{phase}]")
        screen.say(f"  {line['message']}")
    ended = until_built(server, path)
    total = sum(item["seconds"] for item in ended["phases"])
    if ended["status"] == "Succeeded":
        screen.say(f"Build {identifier} succeeded in {total:.1f} s.")
    return ended


def until_built(server: Api, path: str) -> dict[str, Any]:
    """Waits until a build has ended, for however long that takes."""
    found = server.get(path)
    if found["status"] in BUILD_ENDED:
        return found
    for event, build in server.events(f"{path}/events"):
        if event == "build" and build["status"] in BUILD_ENDED:
            return build
    return server.get(path)


def build_failed(build: dict[str, Any], *, seen: bool = False) -> NotReady:
    """The error that tells why a build failed, with its last lines unless the log was `seen`."""
    for line in () if seen else build.get("logTail") or ():
        screen.say(f"  | {line}")
    step = next((c.get("nextStep") for c in build["conditions"] if c.get("nextStep")), None)
    return NotReady(
        f"the build {build['id']} failed: {build['reason']}: {build['message']}",
        code=build["reason"],
        hint=step or next_step(build["reason"]),
    )


def next_step(reason: str) -> str | None:
    """What the catalogue says about a reason."""
    from minuet.kernel.reasons import REASONS

    return REASONS[reason].next_step if reason in REASONS else None


def follow_deployment(server: Api, path: str, deployment: str, timeout: float) -> dict[str, Any]:
    """Tells each phase of a deployment as it comes true; returns the environment once it is settled.

    Raises `NotReady` with the reason and the last log lines when it failed, or
    when `timeout` seconds were not enough.
    """
    began = time.monotonic()
    told: set[str] = set()
    while True:
        for event, state in server.events(f"{path}/events"):
            if event != "environment":
                continue
            current = state.get("current") or {}
            if current.get("id") == deployment:
                _tell(current, told, began)
                if current["phase"] in SETTLED:
                    return _settled(current, state)
            elif current:
                raise NotReady(f"the deployment {deployment} was superseded by {current['id']}", code="Superseded")
            if time.monotonic() - began > timeout:
                break
        if time.monotonic() - began > timeout:
            raise NotReady(
                f"the deployment {deployment} is not ready after {timeout:.0f} s",
                code="TimedOut",
                hint="it goes on; `minuet describe component` shows how it stands",
            )
        time.sleep(0.2)


def _tell(current: dict[str, Any], told: set[str], began: float) -> None:
    holds = {item["type"] for item in current["conditions"] if item["status"] == "True"}
    for kind, line in _STEPS:
        if kind in holds and kind not in told:
            told.add(kind)
            screen.say(f"  {line.ljust(30)} {time.monotonic() - began:5.1f} s")


def _settled(current: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    if current["phase"] in ("Ready", "Suspended"):
        return state
    failed = [item for item in current["conditions"] if item["status"] == "False" and item["type"] != "InForce"]
    why = next((item for item in failed if item["type"] == "Ready"), failed[0] if failed else None)
    if why is None:
        raise NotReady(f"the deployment {current['id']} is {current['phase']}")
    for line in why.get("logTail") or ():
        screen.say(f"  | {line}")
    raise NotReady(
        f"the deployment {current['id']} failed: {why['reason']}: {why['message']}",
        code=why["reason"],
        hint=why.get("nextStep") or next_step(why["reason"]),
    )
