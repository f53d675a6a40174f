"""What the plan looks at and what it answers; frozen, so that planning cannot change it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from minuet.agent.drivers.port import InstanceState, Location
from minuet.kernel.conditions import Condition
from minuet.protocol.desired import Artifact, Workload


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a generation was given up; it is not tried again until a newer one comes."""

    generation: int
    reason: str
    message: str
    log_tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """What must survive the agent: the version that last became healthy, and what was given up."""

    serving: Workload | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class ArtifactState:
    """Where a digest stands on this host; `reason` says what is wrong with it."""

    present: bool = False
    reason: str = "Fetching"
    message: str = ""
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Unrouted:
    """A version that no route names any more: since when (monotonic seconds), and what is still in flight."""

    since: float
    active: int | None


@dataclass(frozen=True, slots=True)
class StartTrouble:
    """Why an instance of a version cannot be started: since when, and when that was last tried (monotonic seconds)."""

    since: float
    last: float
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class View:
    """Everything about one workload at one moment.

    `routed` holds the templates that the gateway's routes name now, or may name
    while nobody knows; `began` is the monotonic second at which this generation
    had its first instance, or now while it has none. `troubles` are by template.
    """

    key: str
    desired: Workload | None
    tombstoned: bool
    memory: Memory
    instances: tuple[InstanceState, ...] = ()
    artifacts: Mapping[str, ArtifactState] = field(default_factory=dict)
    routed: frozenset[str] = frozenset()
    unrouted: Mapping[str, Unrouted] = field(default_factory=dict)
    began: float = 0.0
    troubles: Mapping[str, StartTrouble] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fetch:
    artifact: Artifact


@dataclass(frozen=True, slots=True)
class Start:
    instance: str
    workload: Workload


@dataclass(frozen=True, slots=True)
class Stop:
    instance: str
    grace: float


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget an instance; `broken` says that it ended by a fault of the host, so that the next one must wait a little."""

    instance: str
    broken: bool = False


Action = Fetch | Start | Stop | Remove


@dataclass(frozen=True, slots=True)
class Routing:
    """What the gateway should route for one workload: this document's routes to these endpoints.

    `standby` are the versions that keep a backend without a route while they drain.
    """

    workload: Workload
    endpoints: tuple[Location, ...]
    standby: Mapping[str, tuple[Location, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkloadPlan:
    """What to do for one workload, what to route, what to remember, and what to say."""

    actions: tuple[Action, ...] = ()
    routing: Routing | None = None
    memory: Memory = Memory()
    conditions: tuple[Condition, ...] = ()
    removed: bool = False
    look_again_in: float | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, twice: for people, and for measuring."""

    wall: datetime.datetime
    monotonic: float
