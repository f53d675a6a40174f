"""Which processes belong to an installation, found without asking any of them.

Needed where the launcher, which knows them all, does not answer: to say what a
shutdown has left, and to end it the hard way. A process belongs when it sees
this very data directory in the platform's own mount namespace, when it was
started with a settings file of it, or when one of those started it.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from minuet import system
from minuet.launcher import namespaces, processes

_ROLES = ("launcher", "server", "builder", "agent", "gateway")
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Survivor:
    """One process; `name` is what a person recognises it by."""

    mark: processes.ProcessMark
    name: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.mark.pid})"


def of(data: Path) -> tuple[Survivor, ...]:
    """Every living process of the installation, but not the one that asks nor those that started it."""
    table = system.processes()
    ours = {process.pid for process in table if _belongs(process, data)}
    children: dict[int, list[int]] = {}
    for process in table:
        children.setdefault(process.parent, []).append(process.pid)
    waiting = list(ours)
    while waiting:
        fresh = [pid for pid in children.get(waiting.pop(), ()) if pid not in ours]
        ours.update(fresh)
        waiting += fresh
    ours -= _lineage(table)
    named = ((processes.mark_of(process.pid), _name(process)) for process in table if process.pid in ours)
    return tuple(Survivor(mark, name) for mark, name in named if mark is not None)


def kill(data: Path) -> None:
    """Ends them all at once and for good; applications lose the requests in flight."""
    for survivor in of(data):
        processes.send(survivor.mark, signal.SIGKILL)


def _lineage(table: tuple[system.Process, ...]) -> set[int]:
    """The process that asks, and those it descends from."""
    parents = {process.pid: process.parent for process in table}
    found, pid = set(), os.getpid()
    while pid and pid not in found:
        found.add(pid)
        pid = parents.get(pid, 0)
    return found


def _belongs(process: system.Process, data: Path) -> bool:
    words = process.words
    for role in _ROLES:
        if words[1:5] == ("-m", "minuet", role, "--settings") and Path(words[5]).is_relative_to(data):
            return True
    if words[1:3] == ("-c", "bootstrap.json"):
        return system.folder_of(process.pid) == data / "plane" / "gateway"
    return _sees(process.pid, data)


def _sees(pid: int, data: Path) -> bool:
    """Whether the platform's mount namespace, with this data directory in it, is the one the process lives in."""
    try:
        return Path(f"/proc/{pid}/root{namespaces.ROOM}/data").samefile(data)
    except OSError:
        return False


def _name(process: system.Process) -> str:
    words = process.words
    if words[1:3] == ("-m", "minuet"):
        return words[3]
    return " ".join(words)[:_SHOWN] or "?"
