"""A builder for tests: speaks the builder's protocol over real HTTP and signs what it hands in."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx2

from minuet.kernel.canonical import canonical_json, digest_of
from minuet.protocol.building import (
    BuildOrder,
    BuildpackOffer,
    BuildResult,
    BuiltArtifact,
    Progress,
    ProgressAnswer,
    Registered,
    Registration,
)
from minuet.protocol.descriptor import Descriptor
from minuet.protocol.signing import Signer, new_signing_key
from tests.given.servers import Server

PYTHON = BuildpackOffer(
    name="python",
    versions=("3.11", "3.12"),
    default_version="3.11",
    component_types=("service", "web-application", "webhook", "event-handler"),
    required=("buildPackLangVersion",),
    optional=("port", "runCommand"),
)


@dataclass
class Builder:
    """One incarnation of the builder that the server's own credential stands for."""

    server: Server
    url: str = "http://127.0.0.1:1"
    signer: Signer = field(default_factory=lambda: Signer(new_signing_key()))
    incarnation: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def client(self) -> httpx2.Client:
        return self.server.client(self.server.credential("builder"))

    def register(self, **changes: Any) -> Registered:
        registration = Registration(
            incarnation=self.incarnation,
            version="0.1.0",
            url=self.url,
            public_key=self.signer.public_key,
            isolation="sandbox",
            buildpacks=(PYTHON,),
        ).model_copy(update=changes)
        answer = self.client.post("/builder/registration", content=registration.wire(), headers=JSON)
        assert answer.status_code == 200, answer.text
        return Registered.model_validate_json(answer.content)

    def lease(self) -> BuildOrder | None:
        """Asks once for work; the server may take its time to say that there is none."""
        answer = self.client.post("/builder/leases")
        if answer.status_code == 204:
            return None
        assert answer.status_code == 200, answer.text
        return BuildOrder.model_validate_json(answer.content)

    def lease_of(self, project: str) -> BuildOrder:
        """Leases until it has a build of that project; gives the others of the shared server back as failed."""
        while True:
            order = self.lease()
            assert order is not None, "nothing to build"
            if order.project == project:
                return order
            self.fail(order, "BuildFailed")

    def progress(self, order: BuildOrder, **news: Any) -> ProgressAnswer:
        answer = self.client.post(
            f"/builder/leases/{order.lease}/progress", content=Progress(**news).wire(), headers=JSON
        )
        assert answer.status_code == 200, answer.text
        return ProgressAnswer.model_validate_json(answer.content)

    def artifact(self, content: str = "app", **changes: Any) -> BuiltArtifact:
        layer = {"digest": digest_of(content.encode()), "size": len(content), "target": "/app"}
        manifest = canonical_json({"layers": [layer]}).decode()
        values: dict[str, Any] = {
            "digest": digest_of(manifest.encode()),
            "manifest": manifest,
            "signature": self.signer.sign(manifest.encode()),
            "size": len(content),
            "layers": (layer,),
            "sbom": digest_of(b"sbom"),
            "command": "python app.py",
            "toolchain": "python 3.11",
        }
        return BuiltArtifact(**(values | changes))

    def complete(self, order: BuildOrder, descriptor: Descriptor | None = None, **changes: Any) -> httpx2.Response:
        """Hands in a success; the content of the artifact is the order's build unless it is given."""
        result = BuildResult(
            commit=order.commit or "c" * 40,
            commit_message="change",
            artifact=changes.pop("artifact", None) or self.artifact(order.build),
            descriptor=descriptor or Descriptor(),
            **changes,
        )
        return self._hand_in(order, result)

    def fail(self, order: BuildOrder, reason: str, message: str = "it failed", **changes: Any) -> httpx2.Response:
        return self._hand_in(order, BuildResult(reason=reason, message=message, **changes))

    def _hand_in(self, order: BuildOrder, result: BuildResult) -> httpx2.Response:
        return self.client.post(f"/builder/leases/{order.lease}/result", content=result.wire(), headers=JSON)


JSON = {"Content-Type": "application/json"}


def problem(answer: httpx2.Response) -> dict[str, Any]:
    """Returns the problem of an answer, which must be one."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    shown: dict[str, Any] = json.loads(answer.content)
    return shown
