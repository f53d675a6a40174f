"""Watches one instance: its shim's news as they come, its readiness from outside, its diagnosis.

The driver has one `Follower` for each instance and asks it for `state()`. News
are pushed by the shim; nothing here polls but the dialling of an application
that has not answered yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minuet.agent.drivers.port import InstanceState, Location
from minuet.agent.drivers.process import diagnosis, readiness, verdict
from minuet.kernel.retry import Backoff
from minuet.launcher.isolation import has_own_network
from minuet.protocol.desired import Probe
from minuet.protocol.observed import InstancePhase

_DIAL_EVERY = 0.015
_DIAL_SLOWLY_AFTER = 10.0
_DIAL_SLOWLY_EVERY = 0.25
_CHECK_EVERY = 0.5
_DIAGNOSE_AFTER = 1.0
_DIAGNOSE_EVERY = 1.0
_SHIM_GONE_AFTER = 10.0
_ASK_SECONDS = 2.0
_MESSAGE_LIMIT = 1024 * 1024
_NOWHERE = Location("")
_PHASES = {
    "starting": InstancePhase.STARTING,
    "running": InstancePhase.RUNNING,
    "backoff": InstancePhase.BACKOFF,
    "stopping": InstancePhase.STOPPING,
    "stopped": InstancePhase.STOPPED,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the driver remembers of an instance on its own disk, to follow it again after a restart."""

    id: str
    key: str
    template: str
    generation: int
    isolation: str
    ports: tuple[int, ...]
    http: tuple[int, ...]
    probe: str | None
    memory: int
    location: Location = _NOWHERE
    """Where it is dialled, as the launcher said."""

    @property
    def shares_network(self) -> bool:
        """Whether anybody on this machine may have the port that this instance should have."""
        return not has_own_network(self.isolation)

    @property
    def expectation(self) -> readiness.Expectation:
        probe = Probe.model_validate_json(self.probe) if self.probe else None
        return readiness.Expectation(tuple(self.ports), tuple(self.http), probe)


class Follower:
    """One instance, from its start until it is removed."""

    def __init__(self, facts: Facts, socket: Path, note: Path, changed: Callable[[], None]) -> None:
        self.facts = facts
        self._socket = str(socket)
        self._note = note
        self._changed = changed
        self._state: dict[str, Any] | None = None
        self._tail: tuple[str, ...] = ()
        self._heard = 0
        self._ready = False
        self._diagnosis: diagnosis.Diagnosis | None = None
        self._lost: diagnosis.Diagnosis | None = None
        self._probing: asyncio.Task[None] | None = None
        self._run: tuple[object, object] = (None, None)
        self.stopped = asyncio.Event()
        self._task = asyncio.create_task(self._follow(), name=f"follow {facts.id}")

    async def close(self) -> None:
        self._stop_probing()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def state(self) -> InstanceState:
        """The instance as it was last seen."""
        facts, seen = self.facts, self._state or {}
        found = None if self._ready else (self._lost or self._diagnosis)
        started = seen.get("started_at")
        return InstanceState(
            id=facts.id,
            workload_key=facts.key,
            template=facts.template,
            generation=facts.generation,
            phase=self._phase(),
            ready=self._ready,
            address=facts.location.address or None,
            ports=dict(facts.location.ports),
            restarts=seen.get("restarts", 0),
            started_at=datetime.datetime.fromtimestamp(started, datetime.UTC) if started else None,
            exit_code=seen.get("exit_code"),
            reason=found.reason if found else None,
            message=found.message if found else None,
            log_tail=() if self._ready else self._tail,
            isolation=facts.isolation,
        )

    def _phase(self) -> InstancePhase:
        if self.stopped.is_set():
            return InstancePhase.STOPPED
        told = (self._state or {}).get("phase", "")
        return InstancePhase.FAILED if self._lost else _PHASES.get(told, InstancePhase.STARTING)

    def end(self) -> bool:
        """Takes the launcher's word that nothing of it runs any more; says whether that was news.

        A shim that died while it stopped cannot say so itself.
        """
        if self.stopped.is_set():
            return False
        self.stopped.set()
        self._lost = None
        self._stop_probing()
        self._ready = False
        return True

    # the shim's news

    async def _follow(self) -> None:
        """Stays connected; a shim that died is born again by the launcher and answers at the same place."""
        attempt, lost_since = 0, None
        clock = asyncio.get_running_loop().time
        while not self.stopped.is_set():
            heard_before = self._heard
            with contextlib.suppress(OSError):
                await self._listen()
            if self._heard > heard_before:
                attempt, lost_since = 0, None
            attempt += 1
            if self.stopped.is_set():
                return
            lost_since = lost_since or clock()
            self._set_not_ready()
            if clock() - lost_since > _SHIM_GONE_AFTER and self._lost is None:
                self._lost = diagnosis.Diagnosis("StartFailed", "The process that runs it is gone; is the launcher up?")
                self._changed()
            await asyncio.sleep(Backoff(base=0.02, cap=0.5).delay(attempt))

    async def _listen(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self._socket, limit=_MESSAGE_LIMIT)
        try:
            writer.write(b'{"ask":"watch"}\n')
            while line := await reader.readline():
                self._heard += 1
                self._take(json.loads(line))
        except ValueError as error:
            raise ConnectionError(str(error)) from error
        finally:
            writer.close()

    def _take(self, message: dict[str, Any]) -> None:
        state = message["state"]
        if self.stopped.is_set() and state["phase"] != "stopped":
            return
        self._state, self._lost = state, None
        self._tail = tuple(message["tail"])
        match state["phase"]:
            case "running":
                self._begin_probing(state["application"], state["started_at"])
            case "backoff":
                self._set_not_ready()
                self._diagnosis = diagnosis.of_exit(state, self._tail, self.facts.memory)
            case "stopped":
                self._set_not_ready()
                self.stopped.set()
            case _:
                self._set_not_ready()
        self._changed()

    # readiness

    def _begin_probing(self, application: object, started: object) -> None:
        if self._run == (application, started) and self._probing and not self._probing.done():
            return
        self._stop_probing()
        self._run = (application, started)
        self._probing = asyncio.create_task(self._probe(), name=f"probe {self.facts.id}")

    def _stop_probing(self) -> None:
        if self._probing:
            self._probing.cancel()
            self._probing = None

    def _set_not_ready(self) -> None:
        self._stop_probing()
        if self._ready:
            self._ready = False
            self._changed()

    async def _probe(self) -> None:
        expectation = self.facts.expectation
        if expectation.probe is None:
            await self._until_ready(expectation)
            self._show_ready()
        else:
            await self._keep_checking(expectation, expectation.probe)

    def _show_ready(self) -> None:
        self._ready, self._diagnosis = True, None
        self._changed()

    async def _until_ready(self, expectation: readiness.Expectation) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        next_look = began + _DIAGNOSE_AFTER
        tally = verdict.Tally()
        while True:
            answer = await self._ask(expectation)
            if expectation.probe is None:
                if answer.ready:
                    return
            elif (tally := tally.after(answer.ready, expectation.probe)).healthy:
                return
            now = clock()
            if now >= next_look or self._is_refused_first(answer, expectation):
                next_look = now + _DIAGNOSE_EVERY
                await self._diagnose(answer)
            await asyncio.sleep(_pause(answer, expectation.probe, now - began))

    def _is_refused_first(self, answer: readiness.Answer, expectation: readiness.Expectation) -> bool:
        """A declared check that answered badly is told at once, so that no request goes there meanwhile."""
        known = self._diagnosis is not None and self._diagnosis.reason == "ProbeFailed"
        return expectation.probe is not None and answer.heard is not None and not known

    async def _keep_checking(self, expectation: readiness.Expectation, probe: Probe) -> None:
        """A declared check goes on for life: it lets the instance in, takes it out, and lets it in again."""
        kept = verdict.noted(self._note, *self._run)
        if kept is None:
            await asyncio.sleep(self._left_of(probe.initial_delay))
            await self._until_ready(expectation)
            self._judge(True)
            await asyncio.sleep(probe.period)
        else:
            self._judge(kept.healthy, kept.said)
        tally = verdict.Tally(self._ready)
        only_check = expectation.of_check_alone
        while True:
            answer = await self._ask(only_check)
            tally = tally.after(answer.ready, probe)
            if tally.healthy is not self._ready:
                said = answer.heard or f"port {probe.port} accepts no connection"
                if not tally.healthy:
                    await self._look_at_tail()
                self._judge(tally.healthy, f"Its health check failed {tally.failures} times in a row: {said}.")
            await asyncio.sleep(probe.period)

    def _left_of(self, delay: float) -> float:
        """Seconds until `delay` has passed since the application started; the agent may have come later."""
        started = (self._state or {}).get("started_at") or time.time()
        return max(0.0, float(started) + delay - time.time())

    def _judge(self, healthy: bool, said: str = "") -> None:
        """Shows a verdict of the declared check and keeps it for an agent that comes after this one."""
        if healthy:
            self._show_ready()
        else:
            self._ready, self._diagnosis = False, diagnosis.Diagnosis("Unhealthy", said)
            self._changed()
        verdict.Verdict(*self._run, healthy, "" if healthy else said).note(self._note)

    async def _look_at_tail(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            self._tail = tuple((await self.ask_shim("tail"))["tail"])

    async def _ask(self, expectation: readiness.Expectation) -> readiness.Answer:
        """One round from outside; on a shared network an answer counts only if it is this instance's own."""
        location = self.facts.location
        answer = await readiness.ask(location, expectation)
        if not (answer.ready and self.facts.shares_network and expectation.asked):
            return answer
        listening = await self._listening()
        if listening is None:
            return answer
        own = {port for _, port in listening}
        strange = [port for port in expectation.asked if location.port(port) not in own]
        return readiness.Answer(False, strange[0]) if strange else answer

    async def _listening(self) -> list[tuple[str, int]] | None:
        """Where this instance's own processes listen: nowhere if its shim is silent, None if its system cannot tell."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            told = (await self.ask_shim("listening"))["listening"]
            return None if told is None else [(item[0], item[1]) for item in told]
        return []

    async def _diagnose(self, answer: readiness.Answer) -> None:
        listening = await self._listening() or []
        await self._look_at_tail()
        port = self.facts.location.port(answer.port or 0)
        found = diagnosis.of_silence(port, listening, answered=answer.heard, shared=self.facts.shares_network)
        if found != self._diagnosis:
            self._diagnosis = found
            self._changed()

    async def ask_shim(self, what: str, **more: float) -> dict[str, Any]:
        """One question over a connection of its own."""
        async with asyncio.timeout(_ASK_SECONDS):
            reader, writer = await asyncio.open_unix_connection(self._socket, limit=_MESSAGE_LIMIT)
            try:
                writer.write(json.dumps({"ask": what, **more}).encode() + b"\n")
                answer: dict[str, Any] = json.loads(await reader.readline())
                return answer
            finally:
                writer.close()


def _pause(answer: readiness.Answer, probe: Probe | None, waited: float) -> float:
    """Seconds until a starting instance is asked again: soon while nothing answers, which costs it nothing."""
    if probe is not None and (answer.ready or answer.heard is not None):
        # A check is work for the application; a connection that is refused is none.
        return min(probe.period, _CHECK_EVERY)
    return _DIAL_EVERY if waited < _DIAL_SLOWLY_AFTER else _DIAL_SLOWLY_EVERY
