"""The frames of the link: one JSON text per WebSocket message, told apart by `frame`.

The agent opens with `Hello`, the server answers `Welcome`, then sends `Desired`
from the revision the agent holds. `sequence` on `Observed` rises for the life of
a session, so that reordered or repeated reports are dropped.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from minuet.protocol import VERSION
from minuet.protocol.base import Document
from minuet.protocol.desired import Signed
from minuet.protocol.observed import ObservedWorkload, PlaneReport

MAX_FRAME_BYTES = 16 * 1024 * 1024
PING_INTERVAL_SECONDS = 15.0


class Hello(Document):
    """Agent: who I am, what I hold, which key seals values for me.

    `digest` names the log up to the revision held, if the agent knows it.
    """

    frame: Literal["hello"] = "hello"
    version: int = VERSION
    plane: str
    epoch: int
    revision: int
    digest: str | None = None
    sealing_key: str
    report: PlaneReport


class Welcome(Document):
    """Server: accepted; `session` fences older sessions of the same plane."""

    frame: Literal["welcome"] = "welcome"
    version: int = VERSION
    session: int
    signing_key: str


class Desired(Document):
    """Server: the next revision, delta or snapshot."""

    frame: Literal["desired"] = "desired"
    signed: Signed


class Acknowledge(Document):
    """Agent: this revision is durable here; or one was refused, why, and which is held all the same.

    `refused_*` name the refused one, if it could be read.
    """

    frame: Literal["acknowledge"] = "acknowledge"
    epoch: int
    revision: int
    refused: str | None = None
    refused_epoch: int | None = None
    refused_revision: int | None = None
    message: str | None = None


class Observed(Document):
    """Agent: workloads that changed since the last report; `full` means all of them."""

    frame: Literal["observed"] = "observed"
    sequence: int
    full: bool = False
    workloads: tuple[ObservedWorkload, ...] = ()
    report: PlaneReport | None = None


class LogQuery(Document):
    """Server: lines of one workload. Bounded by `tail`; `follow` keeps the answer open."""

    frame: Literal["logQuery"] = "logQuery"
    id: str
    key: str
    tail: int = Field(default=200, ge=0, le=10_000)
    follow: bool = False
    since: str | None = None
    instance: str | None = None


class CancelQuery(Document):
    """Server: nobody reads the answer any more."""

    frame: Literal["cancelQuery"] = "cancelQuery"
    id: str


class LogLine(Document):
    """One line an application wrote. `dropped` counts lines lost before this one."""

    time: str
    stream: Literal["stdout", "stderr", "system"]
    instance: str
    message: str
    dropped: int = 0


class LogAnswer(Document):
    """Agent: some lines; `done` ends the answer."""

    frame: Literal["logAnswer"] = "logAnswer"
    id: str
    lines: tuple[LogLine, ...] = ()
    done: bool = False
    error: str | None = None


Frame: TypeAlias = Annotated[
    Hello | Welcome | Desired | Acknowledge | Observed | LogQuery | CancelQuery | LogAnswer,
    Field(discriminator="frame"),
]

_ADAPTER: TypeAdapter[Frame] = TypeAdapter(Frame)


def parse_frame(text: str | bytes) -> Frame:
    """Parses one message; raises `pydantic.ValidationError` for anything else."""
    return _ADAPTER.validate_json(text)
