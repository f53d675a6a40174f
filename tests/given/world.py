"""A tiny world for the plan: instances grow up, crash and stop; routes come into force one step after they are asked for."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field, replace

from minuet.agent.drivers.port import InstanceState
from minuet.agent.model import (
    ArtifactState,
    Fetch,
    Memory,
    Moment,
    Remove,
    Routing,
    Start,
    Stop,
    Unrouted,
    View,
    WorkloadPlan,
)
from minuet.agent.plan import plan_workload
from minuet.protocol.desired import Workload
from minuet.protocol.observed import InstancePhase
from tests.given.documents import workload

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
BAD = "bad"
"""A command with this word never becomes ready: it exits again and again."""


def version(name: str, generation: int, *, replicas: int = 1) -> Workload:
    """Returns a document whose content is told by its name."""
    return workload(command=name, generation=generation, deployment=f"d{generation}", release=name, replicas=replicas)


@dataclass
class World:
    """One workload's host. Every look checks what must never happen."""

    desired: Workload | None = None
    tombstoned: bool = False
    memory: Memory = field(default_factory=Memory)
    instances: dict[str, InstanceState] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, ArtifactState] = field(default_factory=dict)
    in_force: Routing | None = None
    asked: Routing | None = None
    unrouted: dict[str, float] = field(default_factory=dict)
    began: float = 0.0
    seconds: float = 0.0
    starts: list[tuple[int, str]] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    last: WorkloadPlan = field(default_factory=WorkloadPlan)

    def declare(self, document: Workload) -> None:
        self.desired, self.tombstoned = document, False
        self.commands[document.template] = document.command
        self.began = self.seconds

    def bury(self) -> None:
        self.desired, self.tombstoned = None, True

    def lose_document(self) -> None:
        self.desired = None

    def crash(self, number: int) -> None:
        """Ends one instance; it comes back by itself some steps later."""
        running = sorted(name for name, state in self.instances.items() if state.phase is InstancePhase.RUNNING)
        if running:
            name = running[number % len(running)]
            state = self.instances[name]
            self._put(replace(state, phase=InstancePhase.BACKOFF, ready=False, restarts=state.restarts + 1))

    def step(self, seconds: float = 1.0) -> WorkloadPlan:
        """Time goes on, the world moves, the plan is made, checked and carried out."""
        self.seconds += seconds
        self._grow()
        if self.asked is not None:
            self._route(self.asked)
        elif self.tombstoned:
            self.in_force = None
        self.last = plan = plan_workload(self.view(), Moment(START, self.seconds))
        self._check(plan)
        self.asked = plan.routing
        self._act(plan)
        if not self.tombstoned and plan.memory.serving is not None and self._serves(plan.memory.serving.template):
            self.memory = plan.memory
        else:
            self.memory = replace(plan.memory, serving=self.memory.serving)
        if plan.removed:
            self.tombstoned, self.memory, self.in_force = False, Memory(), None
        return plan

    def settle(self, steps: int = 120) -> None:
        for _ in range(steps):
            self.step()

    def view(self) -> View:
        routed = frozenset({self.in_force.workload.template}) if self.in_force else frozenset()
        unrouted = {
            template: Unrouted(self.unrouted.setdefault(template, self.seconds), 0)
            for template in {state.template for state in self.instances.values()} - routed
        }
        served = self.endpoints_in_force()
        for name, state in self.instances.items():
            if state.address in served:
                self.unrouted.pop(name, None)
            else:
                unrouted[name] = Unrouted(self.unrouted.setdefault(name, self.seconds), None)
        for template in routed:
            self.unrouted.pop(template, None)
        return View(
            "cmp_1/env_1", self.desired, self.tombstoned, self.memory, tuple(self.instances.values()), self.artifacts,
            routed, unrouted, self.began,
        )  # fmt: skip

    def ready(self, template: str) -> list[InstanceState]:
        return [state for state in self.instances.values() if state.template == template and state.ready]

    def endpoints_in_force(self) -> set[str]:
        return {location.address for location in self.in_force.endpoints} if self.in_force else set()

    def _serves(self, template: str) -> bool:
        return self.asked is not None and self.asked.workload.template == template

    def _check(self, plan: WorkloadPlan) -> None:
        old = self.in_force
        for action in plan.actions:
            if isinstance(action, Stop) and old is not None:
                state = self.instances[action.instance]
                assert state.location not in old.endpoints, "an instance that gets requests is stopped"
        if old is None or self.tombstoned:
            return
        assert plan.routing is not None, "routes vanish without a tombstone"
        if not old.endpoints:
            return
        if plan.routing.workload.template != old.workload.template:
            wanted = plan.routing.workload
            assert len(self.ready(wanted.template)) >= wanted.replicas, "routes move before enough are ready"
        elif old.workload.replicas and self.ready(old.workload.template) and plan.routing.workload.replicas:
            assert plan.routing.endpoints, "the version that serves lost its endpoints"

    def _route(self, routing: Routing) -> None:
        self.in_force = routing

    def _act(self, plan: WorkloadPlan) -> None:
        for action in plan.actions:
            match action:
                case Fetch(artifact):
                    self.artifacts[artifact.digest] = ArtifactState(present=True, reason="Fetched")
                case Start(name, document):
                    assert name not in self.instances
                    self.starts.append((document.generation, document.command))
                    self._put(
                        InstanceState(
                            name, document.key, document.template, document.generation, InstancePhase.STARTING,
                            address=f"10.0.{len(self.starts) // 250}.{len(self.starts) % 250 + 1}",
                        )
                    )  # fmt: skip
                case Stop(name, _):
                    self.stops.append(self.commands[self.instances[name].template])
                    self._put(replace(self.instances[name], phase=InstancePhase.STOPPING, ready=False))
                case Remove(name):
                    assert self.instances.pop(name).phase is InstancePhase.STOPPED

    def _grow(self) -> None:
        for state in list(self.instances.values()):
            self._put(self._grown(state))

    def _grown(self, state: InstanceState) -> InstanceState:
        if state.phase is InstancePhase.STOPPING:
            return replace(state, phase=InstancePhase.STOPPED)
        if state.phase is InstancePhase.STOPPED:
            return state
        if BAD in self.commands[state.template]:
            return replace(state, phase=InstancePhase.BACKOFF, restarts=state.restarts + 1, message="It exited.")
        return replace(state, phase=InstancePhase.RUNNING, ready=True)

    def _put(self, state: InstanceState) -> None:
        self.instances[state.id] = state
