"""What is wrong with an instance that is not ready, in words of the catalogue. Pure.

`follow.py` collects the facts: what the shim says, who listens where inside,
and what asking from outside brought.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

CRASHES = 3
"""Ends in a row after which one speaks of a loop."""

_FULL = ("No space left on device", "ENOSPC")
_EXIT_NOT_FOUND, _EXIT_NOT_EXECUTABLE = 127, 126


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A reason of the catalogue, and what a person can act on."""

    reason: str
    message: str


def of_exit(state: dict[str, Any], tail: tuple[str, ...], memory: int) -> Diagnosis:
    """Why an application ended."""
    code = state["exit_code"]
    if not state["set_up"]:
        return Diagnosis("StartFailed", f"The sandbox could not be set up: {tail[-1] if tail else f'code {code}'}")
    if state["out_of_memory"]:
        return Diagnosis("OutOfMemory", f"It used more than its limit of {memory // 1024**2} MiB and was killed.")
    if any(word in line for line in tail for word in _FULL):
        return Diagnosis("DiskFull", "It could not write: no space is left in its share of the disk.")
    if code in (_EXIT_NOT_FOUND, _EXIT_NOT_EXECUTABLE):
        kind = "does not exist" if code == _EXIT_NOT_FOUND else "is not executable"
        return Diagnosis("ExitedAtOnce", f"The start command {kind} (code {code}).")
    ended = f"code {code}" if code <= 128 else f"signal {code - 128}"  # noqa: PLR2004 - a shell's convention
    if state["restarts"] >= CRASHES:
        return Diagnosis("CrashLoop", f"It ended {state['restarts']} times, last with {ended}.")
    return Diagnosis("ExitedAtOnce", f"It ended with {ended}.")


def of_silence(port: int, listening: list[tuple[str, int]], *, answered: str | None, shared: bool = False) -> Diagnosis:
    """Why a running application cannot be reached at `port`; `answered` is what a probe said, if one got through.

    `shared` says that it has no network of its own, so that `port` was chosen for it.
    """
    if answered is not None:
        return Diagnosis("ProbeFailed", f"It listens on port {port}, but its health check says: {answered}.")
    if not listening:
        return Diagnosis("NotListening", f"It runs but listens on no port; {port} is expected.")
    there = [address for address, listened in listening if listened == port]
    if there and all(ipaddress.ip_address(address).is_loopback for address in there):
        return Diagnosis("ListensOnLoopback", f"It listens on {there[0]} port {port} only; listen on 0.0.0.0.")
    if there:
        return Diagnosis("ProbeFailed", f"It listens on port {port} but does not accept connections.")
    others = ", ".join(str(listened) for listened in sorted({listened for _, listened in listening})[:5])
    if shared:
        why = "Without a network of its own an application must listen on $PORT, whatever port it declares."
        return Diagnosis("ListensOnOtherPort", f"It listens on port {others}; $PORT is {port}. {why}")
    return Diagnosis("ListensOnOtherPort", f"It listens on port {others}; {port} is expected. Use $PORT.")
