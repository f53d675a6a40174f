"""The launcher's register of instances: forks their shims, watches them, gives birth again when one dies.

Agent requests arrive here through `main.py`. What must survive the launcher is
one file for each instance (the order with its sealed values, the number of its
address, whether it is wanted); whether a shim lives is asked of the kernel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minuet import system
from minuet.kernel.errors import Conflict, Exhausted, MinuetError, NotFound, Unavailable
from minuet.kernel.retry import Backoff, next_attempt
from minuet.launcher import cgroups, network, processes, requests, shim, trees, wire
from minuet.launcher.birth import Cradle, become_shim
from minuet.launcher.identities import Identities
from minuet.launcher.loop import Loop
from minuet.launcher.settings import Layout, Settings

Reply = Callable[[wire.Message], None]
_KILL_AFTER = 2.0
"""Seconds a shim gets beyond the grace it was told, before everything of it is killed."""

_SETTLE_CHECKS = 300
_SETTLE_SECONDS = 0.01


@dataclass(slots=True)
class Entry:
    """One instance as the launcher knows it."""

    order: requests.StartInstance
    index: int
    ports: dict[int, int] = field(default_factory=dict)
    """The real port for each declared one; empty where the instance has a network of its own."""

    wanted: bool = True
    shim: processes.ProcessMark | None = None
    accidents: int = 0
    """How often in a row its shim died unasked, soon after it was born."""

    seen_since: float = 0.0
    """The monotonic second at which this launcher bore the living shim or found it alive."""

    gone: list[Callable[[], None]] = field(default_factory=list)
    """Called once, when the shim has ended and will not be born again."""


@dataclass(frozen=True, slots=True)
class Grounds:
    """What every instance of this launcher stands on."""

    settings: Settings
    layout: Layout
    identities: Identities
    hierarchy: cgroups.Hierarchy
    hub: network.Hub | None
    isolation: str


class Instances:
    """All instances of one data plane."""

    def __init__(self, loop: Loop, grounds: Grounds) -> None:
        self._loop = loop
        self._grounds = grounds
        self._entries: dict[str, Entry] = {}
        self._closing = False

    def adopt(self) -> None:
        """Takes up what an earlier launcher left: living shims are watched, dead ones born again."""
        for path in sorted(self._grounds.layout.specs.glob("*.json")):
            try:
                record = json.loads(path.read_bytes())
                order = requests.build(requests.StartInstance, record["order"], "")
            except (ValueError, KeyError, MinuetError):
                path.unlink()
                continue
            ports = {int(declared): real for declared, real in record.get("ports", {}).items()}
            entry = Entry(order, record["index"], {} if self._grounds.hub else ports, record["wanted"])
            self._entries[order.id] = entry
            mark = _shim_mark(self._folder(order.id))
            if mark and processes.alive(mark):
                self._watch(entry, mark)
            elif entry.wanted:
                self._bear(entry)

    # requests

    def start(self, order: requests.StartInstance, reply: Reply) -> None:
        """Idempotent by id: a running instance is answered with its address."""
        if self._closing:
            raise Unavailable("the launcher is shutting down", code="ShuttingDown")
        entry = self._entries.get(order.id)
        if entry is not None and entry.shim is not None:
            if not entry.wanted:
                raise Conflict(f"instance {order.id} is being stopped", code="Stopping")
            reply(self._place(entry))
            return
        self._check_layers(order)
        if entry is None:
            entry = Entry(order, self._free_index())
            self._entries[order.id] = entry
        entry.order, entry.wanted, entry.accidents = order, True, 0
        entry.ports = {} if self._grounds.hub else self._choose_ports(entry)
        self._record(entry)
        self._bear(entry, reply)

    def stop(self, request: requests.StopInstance, reply: Reply) -> None:
        """Answers when nothing of the instance runs any more."""
        entry = self._entries.get(request.id)
        if entry is None or (entry.shim is None and not entry.wanted):
            reply({})
            return
        entry.wanted = False
        self._record(entry)
        self._end(entry, request.grace, lambda: reply({}))

    def remove(self, request: requests.RemoveInstance, reply: Reply) -> None:
        """Stops at once what still runs, then forgets; the workload's logs stay."""
        entry = self._entries.get(request.id)
        if entry is None:
            reply({})
            return
        entry.wanted = False
        self._end(entry, 0.0, lambda: self._erase(entry, reply))

    def listing(self, reply: Reply) -> None:
        reply({"instances": [self._described(entry) for entry in self._entries.values()]})

    def forget_workload(self, request: requests.ForgetWorkload, reply: Reply) -> None:
        """Gives the uid back only after the last file of that uid is gone."""
        if any(entry.order.key == request.key for entry in self._entries.values()):
            raise Conflict(f"{request.key} still has instances", code="InstancesExist", hint="remove them first")
        logs = self._grounds.layout.logs / request.key.replace("/", "_")

        def finish(answer: wire.Message) -> None:
            if "error" not in answer:
                self._grounds.identities.release_workload(request.key)
            reply(answer)

        self._loop.in_child(lambda: trees.remove(logs), finish)

    def uses_layer(self, digest: str) -> bool:
        """Whether an instance was started from that layer and is not removed yet."""
        return any(mount.layer == digest for entry in self._entries.values() for mount in entry.order.layers)

    def close(self, grace: float, done: Callable[[], None]) -> None:
        """Stops every instance; they stay recorded, for the agent to start again or to remove."""
        self._closing = True
        living = [entry for entry in self._entries.values() if entry.shim is not None]
        waiting = {entry.order.id for entry in living}

        def one_less(name: str) -> None:
            waiting.discard(name)
            if not waiting:
                done()

        if not living:
            done()
        for entry in living:
            entry.wanted = False
            self._record(entry)
            self._end(entry, min(grace, entry.order.stop_grace), lambda name=entry.order.id: one_less(name))  # type: ignore[misc]

    def disconnect(self) -> None:
        """Removes every instance's device at once; the kernel would do so a moment later by itself."""
        if self._grounds.hub:
            for entry in self._entries.values():
                network.leave(self._grounds.hub, entry.index)

    # birth and death

    def _bear(self, entry: Entry, reply: Reply | None = None) -> None:
        """Forks the shim; without `reply` nobody asked, and its state alone tells what became of it."""
        grounds = self._grounds
        cradle = Cradle(
            entry.order, grounds.identities.of_workload(entry.order.key), grounds.identities.of_role("agent"),
            grounds.isolation, grounds.hierarchy, grounds.hub, entry.index, entry.ports, grounds.layout,
            grounds.settings,
        )  # fmt: skip
        reader, writer = system.pipe()
        pid = os.fork()
        if pid == 0:
            become_shim(cradle, writer)
        os.close(writer)
        mark = processes.mark_of(pid) or processes.ProcessMark(processes.boot_id(), pid, 0)
        self._watch(entry, mark)
        self._loop.on_readable(reader, lambda: self._born(entry, mark, reader, reply))

    def _born(self, entry: Entry, mark: processes.ProcessMark, reader: int, reply: Reply | None) -> None:
        self._loop.forget(reader)
        data = os.read(reader, 65536)
        os.close(reader)
        answer = json.loads(data) if data else {"error": {"code": "StartFailed", "message": "the shim died at birth"}}
        if reply is None:
            return
        if "error" in answer and entry.shim in (None, mark):
            # Whoever asked is told, and decides whether it is tried again.
            entry.wanted = False
            self._record(entry)
        reply(answer if "error" in answer else self._place(entry))

    def _watch(self, entry: Entry, mark: processes.ProcessMark) -> None:
        entry.shim, entry.seen_since = mark, time.monotonic()
        self._loop.watch_process(mark.pid, lambda _: self._ended(entry))

    def _ended(self, entry: Entry) -> None:
        entry.shim = None
        if entry.wanted and not self._closing:
            entry.accidents = next_attempt(entry.accidents, time.monotonic() - entry.seen_since, shim.STEADY_SECONDS)
            self._loop.after(Backoff().delay(entry.accidents), lambda: self._again(entry))
            return
        self._settle(entry, _SETTLE_CHECKS)

    def _settle(self, entry: Entry, checks: int) -> None:
        """Says that an instance is gone only when the kernel has removed its last process."""
        if checks and self._kill_rest(entry):
            self._loop.after(_SETTLE_SECONDS, lambda: self._settle(entry, checks - 1))
            return
        for callback in entry.gone:
            callback()
        entry.gone.clear()

    def _again(self, entry: Entry) -> None:
        if entry.wanted and entry.shim is None and self._entries.get(entry.order.id) is entry:
            self._bear(entry)

    def _end(self, entry: Entry, grace: float, done: Callable[[], None]) -> None:
        if entry.shim is None:
            self._kill_rest(entry)
            done()
            return
        entry.gone.append(done)
        mark = entry.shim
        if not _ask_to_stop(self._folder(entry.order.id) / shim.SOCKET_FILE, grace):
            processes.send(mark, signal.SIGTERM)
        self._loop.after(grace + _KILL_AFTER, lambda: self._kill_shim(entry, mark))

    def _kill_shim(self, entry: Entry, mark: processes.ProcessMark) -> None:
        if entry.shim == mark:
            processes.send(mark, signal.SIGKILL)

    def _kill_rest(self, entry: Entry) -> bool:
        """Kills what is left of an instance; True when there was something."""
        group = self._grounds.hierarchy.find(entry.order.id)
        group.kill()
        left = group.processes()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(left)

    def _erase(self, entry: Entry, reply: Reply) -> None:
        name, grounds = entry.order.id, self._grounds

        def finish(answer: wire.Message) -> None:
            grounds.hierarchy.remove(name)
            if grounds.hub:
                network.leave(grounds.hub, entry.index)
            (grounds.layout.specs / f"{name}.json").unlink(missing_ok=True)
            self._entries.pop(name, None)
            reply(answer)

        self._loop.in_child(lambda: trees.remove(self._folder(name)), finish)

    # records

    def _record(self, entry: Entry) -> None:
        record = {
            "order": dataclasses.asdict(entry.order),
            "index": entry.index,
            "ports": entry.ports,
            "wanted": entry.wanted,
        }
        path = self._grounds.layout.specs / f"{entry.order.id}.json"
        fresh = path.with_suffix(".new")
        # Not synced: after a power failure the agent orders again what its own durable inventory names.
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(record), encoding="utf-8")
        fresh.rename(path)

    def _described(self, entry: Entry) -> dict[str, Any]:
        return {
            "id": entry.order.id,
            "key": entry.order.key,
            "template": entry.order.template,
            "generation": entry.order.generation,
            **self._place(entry),
            "wanted": entry.wanted,
            "shim": entry.shim.pid if entry.shim else None,
            "socket": str(self._folder(entry.order.id) / shim.SOCKET_FILE),
            "isolation": self._grounds.isolation,
        }

    def _place(self, entry: Entry) -> wire.Message:
        """Where an instance is dialled."""
        address = self._grounds.hub.instance_address(entry.index) if self._grounds.hub else "127.0.0.1"
        return {"address": address, "ports": entry.ports}

    def _choose_ports(self, entry: Entry) -> dict[int, int]:
        """A free port of this machine for each declared one, its old one if that is free again."""
        taken = {real for other in self._entries.values() if other is not entry for real in other.ports.values()}
        chosen: dict[int, int] = {}
        for declared in dict.fromkeys(entry.order.ports):
            old = entry.ports.get(declared)
            used = taken | set(chosen.values())
            chosen[declared] = old if old and network.is_free(old) else network.free_port(used)
        return chosen

    def _folder(self, name: str) -> Path:
        return self._grounds.layout.instances / name

    def _free_index(self) -> int:
        if len(self._entries) >= self._grounds.settings.instances:
            raise Exhausted(
                f"{len(self._entries)} instances exist already", code="NoCapacity", hint="scale something down"
            )
        used = {entry.index for entry in self._entries.values()}
        limit = self._grounds.hub.capacity if self._grounds.hub else len(used) + 1
        free = next((index for index in range(limit) if index not in used), None)
        if free is None:
            raise Exhausted("every address of the pool is in use", code="NoCapacity", hint="set a larger address_pool")
        return free

    def _check_layers(self, order: requests.StartInstance) -> None:
        for mount in order.layers:
            if not (self._grounds.layout.layers / mount.layer).is_dir():
                raise NotFound(f"layer {mount.layer[:12]} is not unpacked here", code="LayerMissing")


def _shim_mark(folder: Path) -> processes.ProcessMark | None:
    """The shim that last wrote the state; its file may lie, so the caller checks that it lives."""
    try:
        state = json.loads((folder / shim.STATE_FILE).read_bytes())
        return requests.build(processes.ProcessMark, state["shim"], "shim")
    except (OSError, ValueError, KeyError, MinuetError):
        return None


def _ask_to_stop(path: Path, grace: float) -> bool:
    """Asks over the shim's socket, without waiting for an answer; False when nobody listens."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        connection.connect(str(path))
        connection.send(wire.encode({"ask": "stop", "grace": grace}))
        return True
    return False
