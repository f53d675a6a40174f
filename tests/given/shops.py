"""A project with a component in an organization of a test's own, and the verbs that tests use on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2

from minuet.protocol.descriptor import Descriptor
from tests.given.agents import Agent
from tests.given.builders import Builder
from tests.given.servers import Tenant, unique

SECONDS = 30.0


@dataclass
class Shop:
    """A project called by a unique name, with the component `web`."""

    tenant: Tenant
    builder: Builder
    project: str
    component: str = "web"

    @property
    def path(self) -> str:
        return f"{self.tenant.path}/projects/{self.project}/components/{self.component}"

    def call(self, method: str, path: str = "", expect: int | None = None, **options: Any) -> httpx2.Response:
        answer = self.tenant.client.request(method, f"{self.path}{path}", **options)
        assert expect is None or answer.status_code == expect, answer.text
        return answer

    def environment(self, name: str = "development") -> dict[str, Any]:
        shown: dict[str, Any] = self.call("GET", f"/environments/{name}", 200).json()
        return shown

    def build(self, descriptor: Descriptor | None = None, **changes: Any) -> str:
        """Asks for a build, leases and completes it; returns its id."""
        made: str = self.call("POST", "/builds", 201, json={}).json()["id"]
        order = self.builder.lease_of(self.project)
        answer = self.builder.complete(order, descriptor, **changes)
        assert answer.status_code == 204, answer.text
        return made

    def deploy(self, environment: str = "development", expect: int = 201, **what: Any) -> dict[str, Any]:
        shown: dict[str, Any] = self.call(
            "POST", "/deployments", expect, json={"environment": environment, **what}
        ).json()
        return shown

    def deploy_ready(self, agent: Agent, environment: str = "development", **what: Any) -> dict[str, Any]:
        """Deploys and has the agent report that it serves; returns the environment when the API says so."""
        made = self.deploy(environment, **what)
        agent.report_ready(agent.until(made["id"]))
        return self.until(environment, lambda shown: shown["phase"] == "Ready" and shown["current"]["id"] == made["id"])

    def until(self, environment: str, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Looks at an environment until the condition holds."""
        deadline = time.monotonic() + SECONDS
        while True:
            shown = self.environment(environment)
            if condition(shown):
                return shown
            assert time.monotonic() < deadline, shown
            time.sleep(0.02)  # the pause between two looks, not the condition


def shop(tenant: Tenant, builder: Builder, **component: Any) -> Shop:
    """Makes a project with a component of the type service, built by Python from a public repository."""
    made = Shop(tenant, builder, unique("prj"))
    answer = tenant.client.post(f"{tenant.path}/projects", json={"name": made.project})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = {
        "name": made.component,
        "type": "service",
        "repository": {"url": "https://example.com/shop/web.git"},
        "buildConfigs": {"buildpack": "python", "buildPackLangVersion": "3.11"},
    }
    answer = tenant.client.post(f"{tenant.path}/projects/{made.project}/components", json=body | component)
    assert answer.status_code == 201, answer.text
    return made


def eventually(check: Callable[[], Any]) -> Any:
    """Calls `check` until it returns something true."""
    deadline = time.monotonic() + SECONDS
    while not (answer := check()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)  # the pause between two looks, not the condition
    return answer
