"""A real builder in its own processes, and the control plane's side of its API, played by the test.

The builder is started by a real launcher and builds in real sandboxes; what it
leases, is told and hands in goes over real HTTP, so that a test can also be a
control plane that is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import io
import itertools
import json
import queue
import re
import shutil
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from minuet.protocol.building import (
    Belongings,
    BuildLimits,
    BuildOrder,
    BuildResult,
    BuiltArtifact,
    Progress,
    ProgressAnswer,
    Registered,
    Registration,
)
from minuet.protocol.signing import Signer, issue_ticket, new_signing_key
from tests.given.platform import eventually, free_port
from tests.given.repository import Repository
from tests.given.runtime import Installation

LIMITS = BuildLimits(memory=1024**3, seconds=170.0)


@dataclass
class Orders:
    """What the control plane of the tests knows; shared by its handler's threads."""

    key: Signer = field(default_factory=lambda: Signer(new_signing_key()))
    waiting: queue.Queue[BuildOrder] = field(default_factory=queue.Queue)
    registrations: list[Registration] = field(default_factory=list)
    progress: dict[str, list[Progress]] = field(default_factory=dict)
    results: dict[str, BuildResult] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    away: threading.Event = field(default_factory=threading.Event)
    lost: set[str] = field(default_factory=set)
    results_at_registration: int = 0
    gone: set[str] = field(default_factory=set)
    pushes: list[dict[str, Any]] = field(default_factory=list)
    pushed: list[dict[str, Any]] = field(default_factory=list)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    orders: Orders

    def do_GET(self) -> None:
        """What a repository's front door asks on behalf of whoever pushes: anybody may, in this bench."""
        if not self.path.endswith("/repository"):
            self._answer(200, json.dumps({"items": []}))
            return
        project = self.path.split("/")[-2]
        self._answer(
            200, json.dumps({"projectId": f"prj_{project}".replace("-", "_"), "readable": True, "writable": True})
        )

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.orders.away.is_set():
            self._answer(503, "{}")
            return
        if self.path.endswith("/pushes"):
            self.orders.pushes.append(json.loads(body))
            self._answer(201, json.dumps({"builds": self.orders.pushed}))
            return
        assert self.headers["Authorization"] == "Bearer credential-of-the-builder"
        lease = self.path.split("/")[-2]
        match self.path.rsplit("/", 1)[-1]:
            case "registration":
                self.orders.results_at_registration = len(self.orders.results)
                self.orders.registrations.append(Registration.model_validate_json(body))
                self._answer(200, Registered(signing_key=self.orders.key.public_key, lease_seconds=1.5).wire())
            case "leases":
                self._lease()
            case "held":
                asked = Belongings.model_validate_json(body)
                self._answer(200, Belongings(
                    builds=tuple(item for item in asked.builds if item not in self.orders.gone),
                    projects=tuple(item for item in asked.projects if item not in self.orders.gone),
                ).wire())  # fmt: skip
            case "progress" if lease in self.orders.lost:
                self._answer(409, "{}")
            case "progress":
                self.orders.progress.setdefault(lease, []).append(Progress.model_validate_json(body))
                self._answer(200, ProgressAnswer(cancelled=lease in self.orders.cancelled).wire())
            case "result":
                self.orders.results[lease] = BuildResult.model_validate_json(body)
                self._answer(204, "")

    def _lease(self) -> None:
        try:
            self._answer(200, self.orders.waiting.get(timeout=1.0).wire())
        except queue.Empty:
            self._answer(204, "")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        if status != 204:
            self.wfile.write(text.encode())

    def log_message(self, *arguments: Any) -> None:
        """Tests read the builder's log, not this one."""


@dataclass(frozen=True)
class Built:
    """One build that has ended, with everything that was told of it."""

    bench: Workbench
    order: BuildOrder
    result: BuildResult
    progress: list[Progress]

    @property
    def artifact(self) -> BuiltArtifact:
        assert self.result.artifact is not None, f"{self.result.reason}: {self.result.message}\n{self.log}"
        return self.result.artifact

    @property
    def log(self) -> str:
        return "\n".join(record["message"] for record in self.records)

    @property
    def records(self) -> list[dict[str, str]]:
        lines = self.bench.log(self.order.build).splitlines()
        return [json.loads(line) for line in lines]

    def phase(self, name: str) -> str:
        """What a phase of that name said."""
        return next(phase.message for phase in self.result.phases if phase.name == name)

    def files(self, target: str = "/app") -> dict[str, tarfile.TarInfo]:
        """The members of the layer at that target, fetched as a data plane does."""
        with self._tar(target) as tar:
            return {member.name: member for member in tar.getmembers()}

    def read(self, name: str, target: str = "/app") -> bytes:
        with self._tar(target) as tar:
            found = tar.extractfile(name)
            assert found is not None, name
            return found.read()

    def packages(self) -> dict[str, str]:
        """Names and versions of the bill of materials."""
        bill = json.loads(self.bench.fetch(self.artifact.sbom, self.artifact.digest))
        return {item["name"].lower(): item["version"] for item in bill.get("components", ())}

    def _tar(self, target: str) -> tarfile.TarFile:
        digest = next(str(layer["digest"]) for layer in self.artifact.layers if layer["target"] == target)
        return tarfile.open(fileobj=io.BytesIO(self.bench.fetch(digest, self.artifact.digest)))


class Workbench:
    """One data directory with launcher and builder, and an endless supply of repositories."""

    def __init__(self) -> None:
        self.orders = Orders()
        self.installation = Installation()
        self.port = free_port()
        self._sources = Path(tempfile.mkdtemp(prefix="mn-src-", dir="/tmp"))
        self._sources.chmod(0o755)
        self._count = itertools.count(1)
        handler = cast("type[_Handler]", type("Handler", (_Handler,), {"orders": self.orders}))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def directory(self) -> Path:
        """The builder's own."""
        return self.installation.data / "builder"

    def start(self) -> None:
        asyncio.run(self.installation.start())
        self.directory.mkdir(exist_ok=True)
        settings = {
            "directory": ".",
            "server": f"http://127.0.0.1:{self._server.server_address[1]}",
            "credential": "credential",
            "launcher": "../launcher/sockets/builder.sock",
            "port": self.port,
            "allow_local_repositories": True,
        }
        lines = (f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
        (self.directory / "settings.toml").write_text("".join(lines))
        (self.directory / "settings.toml").chmod(0o644)
        (self.directory / "credential").write_text("credential-of-the-builder")
        (self.directory / "credential").chmod(0o644)
        self.start_builder()

    def start_builder(self) -> None:
        before = len(self.orders.registrations)
        asyncio.run(self.installation.client("supervisor").start_role("builder"))
        eventually(lambda: len(self.orders.registrations) > before, 60, f"the builder registers\n{self.own_log()}")

    def stop_builder(self) -> None:
        asyncio.run(self.installation.client("supervisor").stop_role("builder", 5.0))

    def close(self) -> None:
        asyncio.run(self.installation.close())
        self._server.shutdown()
        self._server.server_close()
        shutil.rmtree(self._sources)

    def own_log(self) -> str:
        path = self.directory / "log"
        return path.read_text() if path.exists() else ""

    def repository(self, files: Mapping[str, str | bytes] | None = None) -> Repository:
        """A repository on this machine that every uid may read."""
        made = Repository(self._sources / f"repository-{next(self._count)}")
        if files is not None:
            made.commit(files)
        return made

    def remote(self, project: str) -> str:
        """The address of a project's hosted repository, for somebody who may push to it."""
        return f"http://owner:token@127.0.0.1:{self.port}/git/default/{project}.git"

    def order(self, source: Repository | str | None, **changes: Any) -> BuildOrder:
        """Puts an order into the queue."""
        number = next(self._count)
        given: dict[str, Any] = {
            "lease": f"lse_{number}",
            "build": f"bld_{number}",
            "organization": "default",
            "organization_id": "org_1",
            "project": "shop",
            "project_id": "prj_1",
            "component": "web",
            "component_id": "cmp_1",
            "component_type": "service",
            "repository": source.url if isinstance(source, Repository) else source,
            "branch": "main",
            "limits": LIMITS,
        }
        made = BuildOrder(**(given | changes))
        self.orders.waiting.put(made)
        return made

    def result(self, order: BuildOrder, seconds: float = 170.0) -> Built:
        """Waits for the end of a build."""
        result = eventually(lambda: self.orders.results.get(order.lease), seconds, f"{order.build} ends")
        return Built(self, order, result, self.orders.progress.get(order.lease, []))

    def build(self, source: Repository | Mapping[str, str | bytes] | str | None, **changes: Any) -> Built:
        """Builds a repository, or files that become one."""
        if isinstance(source, Mapping):
            source = self.repository(source)
        return self.result(self.order(source, **changes))

    def get(self, path: str, ticket: str | None = None, headers: Mapping[str, str] = {}) -> tuple[int, bytes]:
        """Asks the builder's own HTTP."""
        bearer = {"Authorization": f"Bearer {ticket}"} if ticket else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers={**bearer, **headers})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def fetch(self, digest: str, manifest: str) -> bytes:
        status, body = self.get(f"/artifacts/{digest}", self.ticket(plane="local", artifact=manifest))
        assert status == 200, body
        return body

    def log(self, build: str) -> str:
        status, body = self.get(f"/builds/{build}/log", self.ticket(build=build))
        assert status == 200, body
        return body.decode()

    def ticket(self, **claims: str) -> str:
        return issue_ticket(self.orders.key, **claims)


SAMPLES = Path(__file__).parents[2] / "samples"


def sample(name: str) -> dict[str, str | bytes]:
    """The files of a sample, as they are."""
    folder = SAMPLES / name
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def workbench() -> Iterator[Workbench]:
    """A started workbench; what is left of it at the end is a failure."""
    bench = Workbench()
    try:
        bench.start()
        yield bench
    finally:
        bench.close()


def failed(built: Built, reason: str, *patterns: str) -> None:
    """Asserts that a build failed for a reason, with a message that says all of `patterns`."""
    assert built.result.reason == reason, f"{built.result.reason}: {built.result.message}\n{built.log}"
    for pattern in patterns:
        assert re.search(pattern, built.result.message), built.result.message
    assert built.result.artifact is None
    assert built.result.log_tail
