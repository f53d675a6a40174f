"""Following builds and deployments: one line a phase, elapsed at its end, no spinner."""

from __future__ import annotations

import time
from typing import Any

from minuet.cli import place, screen
from minuet.client import logs
from minuet.client.api import Api
from minuet.kernel.errors import NotReady, Unavailable

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

Json = dict[str, Any]


def follow_build(server: Api, path: str, timeout: float) -> Json:
    """Streams a build's log and returns the ended build; raises `NotReady` when `timeout` seconds were not enough."""
    deadline = time.monotonic() + timeout
    phase = ""
    try:
        for line in logs.lines(server, f"{path}/logs", deadline=deadline, follow=True):
            if line.get("phase") and line["phase"] != phase:
                phase = line["phase"]
                screen.say(f"[{phase}]")
            if line.get("dropped"):
                screen.say(f"  ({line['dropped']} lines were dropped here)")
            screen.say(f"  {line['message']}")
    except Unavailable as error:
        screen.say(f"The log cannot be shown ({error.message}); the build goes on.")
    ended = until_built(server, path, server.get(path), deadline - time.monotonic())
    _tell_phases(ended)
    return ended


def until_built(server: Api, path: str, build: Json, timeout: float) -> Json:
    """Waits until a build has ended; raises `NotReady` when `timeout` seconds were not enough."""
    if build["status"] in BUILD_ENDED:
        return build
    for event, state in server.events(f"{path}/events", deadline=time.monotonic() + timeout):
        if event == "build" and state["status"] in BUILD_ENDED:
            return state
    waiting = place.command_line("wait", "build", build["id"], project=build.get("project"))
    raise NotReady(
        f"the build {build['id']} has not ended in time",
        code="TimedOut",
        hint=f"it goes on; `{waiting}` waits for it",
    )


def _tell_phases(build: Json) -> None:
    for phase in build["phases"]:
        screen.say(f"  {phase['name'].ljust(30)} {phase['seconds']:5.1f} s  {phase['state']}")
    if build["status"] == "Succeeded":
        total = sum(phase["seconds"] for phase in build["phases"])
        screen.say(f"Build {build['id']} succeeded in {total:.1f} s.")


def build_failed(build: Json, *, seen: bool = False) -> NotReady:
    """The error that tells why a build failed, with its last lines unless the log was `seen`."""
    for line in () if seen else build.get("logTail") or ():
        screen.say(f"  | {line}")
    step = next((place.named(item["nextStep"], build) for item in build["conditions"] if item.get("nextStep")), None)
    ended = "was cancelled" if build["status"] == "Cancelled" else "failed"
    return NotReady(
        f"the build {build['id']} {ended}: {build['reason']}: {build['message']}",
        code=build["reason"],
        hint=step or next_step(build["reason"], build),
    )


def next_step(reason: str, of: Json) -> str | None:
    """What the catalogue says about a reason, unless it is that there is nothing to do."""
    from minuet.kernel.reasons import REASONS

    known = REASONS.get(reason)
    return None if known is None or known.next_step == "Nothing to do." else place.named(known.next_step, of)


def follow_deployment(server: Api, path: str, deployment: str, timeout: float) -> Json:
    """Tells each phase of a deployment as it comes true; returns the environment once it is settled.

    Raises `NotReady` with the reason and the last log lines when it failed, or
    when `timeout` seconds were not enough.
    """
    began = time.monotonic()
    told: set[str] = set()
    current: Json = {}
    for event, state in server.events(f"{path}/events", deadline=began + timeout):
        if event != "environment":
            continue
        current = state.get("current") or {}
        if current.get("id") != deployment:
            raise NotReady(_replaced(deployment, current), code="Superseded")
        _tell(current, told, began)
        if current["phase"] in SETTLED:
            return _settled(current, state)
    raise _too_late(f"the deployment {deployment} is not ready after {timeout:g} s", current)


def until_removed(server: Api, path: str, timeout: float) -> None:
    """Waits until nothing of a component is left in an environment; raises `NotReady` after `timeout` seconds."""
    for event, state in server.events(f"{path}/events", deadline=time.monotonic() + timeout):
        if event != "environment":
            continue
        if state.get("current"):
            raise NotReady("it is deployed, and nobody is removing it", code="NotDeleting")
        if not state.get("removing") and not state["instances"]:
            return
    raise NotReady(f"it is not gone after {timeout:g} s", code="TimedOut")


def _replaced(deployment: str, current: Json) -> str:
    if not current:
        return f"the deployment {deployment} was taken out of the environment"
    return f"the deployment {deployment} was superseded by {current['id']}"


def wait_for(server: Api, path: str, condition: str, timeout: float) -> Json:
    """Waits until an environment is Ready, or until a condition of it is True; raises `NotReady` otherwise.

    A failed deployment ends the wait for Ready; any other condition may still come.
    """
    state: Json = {}
    for event, state in server.events(f"{path}/events", deadline=time.monotonic() + timeout):
        current = state.get("current") or {}
        if event != "environment" or not current:
            continue
        if any(item["type"] == condition and item["status"] == "True" for item in state["conditions"]):
            return state
        if condition == "Ready" and current["phase"] in ("Failed", "Suspended"):
            raise _failed(current)
    current = state.get("current") or {}
    if not current:
        raise _too_late(f"nothing was deployed within {timeout:g} s", current)
    raise _too_late(f"{condition} is not True after {timeout:g} s", current)


def _too_late(what: str, current: Json) -> NotReady:
    waiting = next((item for item in current.get("conditions", ()) if item["status"] != "True"), None)
    why = f": {waiting['type']} is {waiting['status']}, {waiting['reason']}: {waiting['message']}" if waiting else ""
    if not current:
        return NotReady(what, code="TimedOut", hint="deploy it first")
    line = place.command_line("describe", "component", current["component"], project=current["project"])
    return NotReady(f"{what}{why}", code="TimedOut", hint=f"it goes on; `{line}` shows how it stands")


def _tell(current: Json, told: set[str], began: float) -> None:
    holds = {item["type"] for item in current["conditions"] if item["status"] == "True"}
    elapsed = time.monotonic() - began
    for kind, line in _STEPS:
        if kind in holds and kind not in told:
            told.add(kind)
            screen.say(f"  {line.ljust(30)} {elapsed:5.1f} s")
    if current["phase"] == "Unknown" and "Unknown" not in told:
        told.add("Unknown")
        screen.say(f"  {'The data plane cannot be seen'.ljust(30)} {elapsed:5.1f} s  waiting for its link")


def _settled(current: Json, state: Json) -> Json:
    if current["phase"] in ("Ready", "Suspended"):
        return state
    raise _failed(current)


def _failed(current: Json) -> NotReady:
    failed = [item for item in current["conditions"] if item["status"] == "False" and item["type"] != "InForce"]
    why = next((item for item in failed if item["type"] == "Ready"), failed[0] if failed else None)
    if why is None:
        return NotReady(f"the deployment {current['id']} is {current['phase']}")
    for line in why.get("logTail") or ():
        screen.say(f"  | {line}")
    return NotReady(
        f"the deployment {current['id']} failed: {why['reason']}: {why['message']}",
        code=why["reason"],
        hint=place.named(why["nextStep"], current) if why.get("nextStep") else next_step(why["reason"], current),
    )
