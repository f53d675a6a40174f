"""An agent for tests: a real WebSocket peer of the link that keeps documents in memory and reports what it is told."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator
from typing import Any

from websockets.sync.client import ClientConnection, connect

from minuet.kernel.conditions import ConditionType, Status
from minuet.protocol.desired import Tombstone, Workload
from minuet.protocol.frames import Acknowledge, Desired, Frame, Hello, LogQuery, Observed, Welcome, parse_frame
from minuet.protocol.observed import InstancePhase, ObservedCondition, ObservedInstance, ObservedWorkload, PlaneReport
from minuet.protocol.sealing import new_sealing_key, sealing_public_key
from minuet.protocol.signing import open_revision
from tests.given.servers import Server

GATEWAY = "http://localhost:8480"
SECONDS = 30.0
_READY = (
    (ConditionType.FETCHED, "Fetched"),
    (ConditionType.STARTED, "Started"),
    (ConditionType.HEALTHY, "Healthy"),
    (ConditionType.ROUTED, "Routed"),
    (ConditionType.READY, "Ready"),
)


class Agent:
    """One session of the default data plane; `project` is the one whose documents a test waits for."""

    def __init__(self, link: ClientConnection, sealing_key: bytes, welcome: Welcome) -> None:
        self.project = ""
        self.link = link
        self.sealing_key = sealing_key
        self.welcome = welcome
        self.documents: dict[str, Workload | Tombstone] = {}
        self.revisions: list[int] = []
        self.seen: list[str] = []
        self.sequence = 0

    def receive(self, seconds: float = SECONDS) -> Frame:
        """Returns the next frame; revisions are kept and acknowledged."""
        frame = parse_frame(self.link.recv(timeout=seconds))
        if isinstance(frame, Desired):
            revision = open_revision(self.welcome.signing_key, frame.signed)
            for change in revision.changes:
                self.documents[change.key] = change
                self.seen.append(change.deployment if isinstance(change, Workload) else change.kind)
            self.revisions.append(revision.revision)
            self.link.send(Acknowledge(epoch=revision.epoch, revision=revision.revision).wire())
        return frame

    def until(self, deployment: str) -> Workload:
        """Receives until the document of that deployment is there."""
        deadline = time.monotonic() + SECONDS
        while True:
            for document in self.documents.values():
                if isinstance(document, Workload) and self._is(document, deployment):
                    return document
            self.receive(max(0.01, deadline - time.monotonic()))

    def _is(self, document: Workload, deployment: str) -> bool:
        return (document.project, document.deployment) == (self.project, deployment)

    def until_removed(self, key: str) -> Tombstone:
        deadline = time.monotonic() + SECONDS
        while True:
            document = self.documents.get(key)
            if isinstance(document, Tombstone):
                return document
            self.receive(max(0.01, deadline - time.monotonic()))

    def until_asked(self) -> LogQuery:
        while True:
            frame = self.receive()
            if isinstance(frame, LogQuery):
                return frame

    def report(self, *workloads: ObservedWorkload, full: bool = False) -> None:
        self.sequence += 1
        self.link.send(Observed(sequence=self.sequence, workloads=workloads, full=full).wire())

    def report_ready(self, document: Workload, **changes: Any) -> None:
        self.report(ready(document, **changes))


def observed(document: Workload, *conditions: tuple[ConditionType, Status, str], **changes: Any) -> ObservedWorkload:
    """Returns a report with those conditions."""
    now = datetime.datetime.now(datetime.UTC)
    told = tuple(
        ObservedCondition(type=kind, status=status, reason=reason, message=reason, since=now)
        for kind, status, reason in conditions
    )
    return ObservedWorkload(key=document.key, generation=document.generation, conditions=told).model_copy(
        update=changes
    )


def ready(document: Workload, **changes: Any) -> ObservedWorkload:
    """Returns a report that everything of a document runs and serves."""
    instances = tuple(
        ObservedInstance(
            id=f"i{document.generation}{number}",
            template=document.template,
            generation=document.generation,
            phase=InstancePhase.RUNNING,
            ready=True,
        )
        for number in range(document.replicas)
    )
    told = ((kind, Status.TRUE, reason) for kind, reason in _READY)
    values: dict[str, Any] = {
        "serving_generation": document.generation,
        "serving_release": document.release,
        "instances": instances,
    }
    return observed(document, *told, **(values | changes))


@contextlib.contextmanager
def agent(server: Server, *, sealing_key: bytes | None = None, revision: int = 0, epoch: int = 1) -> Iterator[Agent]:
    """Connects as the agent of the default plane; it gets every document it does not hold."""
    key = sealing_key or new_sealing_key()
    headers = {"Authorization": f"Bearer {server.credential('agent')}"}
    address = f"ws://127.0.0.1:{server.port}/api/v1/planes/default/link"
    report = PlaneReport(isolation="sandbox", gateway_ready=True, gateway_url=GATEWAY, agent_version="0.1.0")
    with connect(address, additional_headers=headers, proxy=None, max_size=None) as link:
        hello = Hello(
            plane="default", epoch=epoch, revision=revision, sealing_key=sealing_public_key(key), report=report
        )
        link.send(hello.wire())
        welcome = parse_frame(link.recv(timeout=SECONDS))
        assert isinstance(welcome, Welcome), welcome
        yield Agent(link, key, welcome)
