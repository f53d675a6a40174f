"""Applying against a real server: checked first, changed afterwards, and the same twice."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import yaml

from minuet.protocol.descriptor import Descriptor
from minuet.protocol.desired import Workload
from tests.given import agents, servers
from tests.given.agents import Agent
from tests.given.builders import Builder
from tests.given.command import Command
from tests.given.servers import Server
from tests.given.shops import Shop

FULL = """\
kind: Environment
name: staging
displayName: Rehearsal
---
kind: Pipeline
name: default
environments: [Development, Staging, Production]
---
kind: Credential
name: forge
type: token
username: me
value: {fromEnvironment: FORGE}
---
kind: Project
name: shop
type: multi-repository
description: |
  sells
  things
---
kind: Component
project: shop
name: web
type: service
description: "two\\nlines"
repository: {url: https://git.example.com/shop/web.git, branch: main, directory: ./api/, credential: forge}
buildConfigs: {port: 9000, runCommand: ""}
---
kind: Configuration
project: shop
component: web
environment: Staging
variables: {GREETING: hello}
files: {/app/a.b: one, /app/a_b: two}
secrets: {KEY: null}
secretFiles: {/app/key.pem: {fromEnvironment: PEM}}
"""
SECRETS = {"FORGE": "t0ken", "KEY": "s3cret", "PEM": "p3m"}


def ok(done: Any) -> Any:
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def elsewhere(owner: Command, server: Server) -> Command:
    """Another organization, in which nothing was made yet."""
    tenant = servers.tenant(server)
    return Command(owner.home, owner.server, tenant.token, {"MINUET_ORGANIZATION": tenant.name})


def test_every_kind_is_made_once_and_an_export_makes_the_same_elsewhere(owner: Command, real_server: Server) -> None:
    owner.environment |= SECRETS
    first = ok(owner.here("apply", "-f", "-", stdin=FULL))
    assert "6 of 6 changed." in first.stderr
    assert all(secret not in first.stdout + first.stderr for secret in SECRETS.values())
    for name in SECRETS:
        del owner.environment[name]
    again = ok(owner.here("apply", "-f", "-", stdin=FULL))
    assert "0 of 6 changed." in again.stderr, again.stdout
    exported = ok(owner.here("export")).stdout
    assert "0 of " in ok(owner.here("apply", "-f", "-", stdin=exported)).stderr
    documents = list(yaml.safe_load_all(exported))
    assert next(item for item in documents if item["kind"] == "Project")["type"] == "multi-repository"
    assert next(item for item in documents if item["kind"] == "Configuration")["secretFiles"] == {"/app/key.pem": None}

    other = elsewhere(owner, real_server)
    refused = other.here("apply", "-f", "-", stdin=exported)
    assert (refused.returncode, "FORGE_TOKEN" in refused.stderr) == (2, True), refused.stderr
    other.environment |= {"FORGE_TOKEN": "t0ken", "KEY": "s3cret"}
    assert ok(other.here("list", "projects", "-o", "name")).stdout == ""
    sourced = exported.replace("/app/key.pem: null", "/app/key.pem: {fromEnvironment: KEY}")
    ok(other.here("apply", "-f", "-", stdin=sourced))
    again = ok(other.here("export")).stdout
    assert again == exported


@pytest.mark.parametrize(
    ("more", "told", "code"),
    [
        ("kind: Deployment\nproject: shop\ncomponent: web\nenvironment: Development\nbuild: web-1", "--build", 6),
        ("kind: Deployment\nproject: shop\ncomponent: web\nenvironment: Development", "no build succeeded", 6),
        ("kind: Deployment\nproject: shop\ncomponent: nothing\nenvironment: Development", "nothing", 3),
        ("kind: Configuration\nproject: shop\ncomponent: web\nenvironment: moon", "moon", 3),
        ("kind: Component\nproject: nowhere\nname: api\ntype: service", "nowhere", 3),
        (
            "kind: Component\nproject: shop\nname: api\ntype: service\nrepository: {credential: none}",
            "there is no credential none",
            3,
        ),
        ("kind: Pipeline\nname: long\nenvironments: [development, moon]", "moon", 3),
        ("kind: Environment\nname: qa\ndataPlane: moon", "moon", 3),
        ("kind: Project\nname: Not A Name", "must start with a letter", 2),
        ("kind: Project\nname: shop", "described twice", 2),
    ],
)
def test_what_cannot_be_made_so_is_told_before_anything_is_changed(
    more: str, told: str, code: int, owner: Command
) -> None:
    owner.environment |= SECRETS
    done = owner.here("apply", "-f", "-", stdin=f"{FULL}---\n{more}\n")
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert told in done.stderr
    assert ok(owner.here("list", "projects", "-o", "name")).stdout == ""
    assert "forge" not in ok(owner.here("list", "credentials", "-o", "name")).stdout


def test_what_a_file_leaves_out_stays_on_the_server(owner: Command) -> None:
    owner.environment |= SECRETS
    ok(owner.here("apply", "-f", "-", stdin=FULL))
    before = ok(owner.here("get", "component", "web")).stdout
    bare = "kind: Component\nproject: shop\nname: web\ntype: service\n"
    done = ok(owner.here("apply", "-f", "-", stdin=bare))
    assert "0 of 1 changed." in done.stderr
    ok(owner.here("apply", "-f", "-", stdin=f"{bare}repository: {{branch: next}}\n"))
    after = yaml.safe_load(ok(owner.here("get", "component", "web")).stdout)
    assert after["repository"] == yaml.safe_load(before)["repository"] | {"branch": "next"}


def deployments(shop: Shop, build: str, **said: Any) -> str:
    where = {"kind": "Deployment", "project": shop.project, "component": "web", "build": build}
    return yaml.safe_dump_all([where | {"environment": name} | said for name in ("Production", "Development")])


class _Answering(threading.Thread):
    """An agent that reports every document of the project as ready, as many as are expected."""

    def __init__(self, agent: Agent, shop: Shop, expected: int) -> None:
        super().__init__(daemon=True)
        agent.project = shop.project
        self._agent, self._expected = agent, expected

    def run(self) -> None:
        seen: set[str] = set()
        while len(seen) < self._expected:
            for document in list(self._agent.documents.values()):
                is_own = isinstance(document, Workload) and document.project == self._agent.project
                if is_own and document.deployment not in seen:
                    seen.add(document.deployment)
                    self._agent.report_ready(document)
            if len(seen) < self._expected:
                self._agent.receive(30)


def test_a_promotion_in_the_same_file_waits_for_the_stage_before_and_says_what_it_does_not_wait_for(
    owner: Command, shop: Shop, real_server: Server
) -> None:
    build = shop.build(Descriptor())
    with agents.agent(real_server) as agent:
        answering = _Answering(agent, shop, 2)
        answering.start()
        done = ok(owner.here("apply", "-f", "-", stdin=deployments(shop, build, replicas=2)))
        answering.join(10)
        assert done.stdout.index("in development") < done.stdout.index("in production")
        assert "Not waited for; `minuet wait deployment web --project" in done.stderr
        assert done.stderr.count("Not waited for") == 1
        shop.until("production", lambda shown: shown["phase"] == "Ready")
        again = ok(owner.here("apply", "-f", "-", stdin=deployments(shop, build, replicas=2)))
        assert "0 of 2 changed." in again.stderr

        stopped = deployments(shop, build, state="suspended")
        ok(owner.here("apply", "-f", "-", stdin=stopped))
        exported = ok(owner.here("export", "--project", shop.project)).stdout
        kept = [item for item in yaml.safe_load_all(exported) if item["kind"] == "Deployment"]
        assert [(item["state"], item["replicas"]) for item in kept] == [("suspended", 2)] * 2
        assert "0 of " in ok(owner.here("apply", "-f", "-", stdin=exported)).stderr


def test_a_promotion_of_what_was_never_ready_is_refused_first(owner: Command, shop: Shop) -> None:
    build = shop.build()
    document = f"kind: Deployment\nproject: {shop.project}\ncomponent: web\nenvironment: Production\nbuild: {build}\n"
    done = owner.here("apply", "-f", "-", stdin=f"kind: Project\nname: other\n---\n{document}")
    assert done.returncode == 5
    assert "has not been ready in development" in done.stderr
    assert "other" not in ok(owner.here("list", "projects", "-o", "name")).stdout


def test_a_missing_build_is_made_when_that_is_asked_for(owner: Command, shop: Shop, real_server: Server) -> None:
    builder = Builder(real_server, signer=shop.builder.signer, incarnation=shop.builder.incarnation)
    building = threading.Thread(target=lambda: builder.complete(builder.lease_of(shop.project)), daemon=True)
    building.start()
    document = f"kind: Deployment\nproject: {shop.project}\ncomponent: web\nenvironment: Development\nbuild: web-7\n"
    done = ok(owner.here("apply", "--build", "-f", "-", stdin=document))
    building.join(10)
    assert "+ it is built first" in done.stdout
    assert shop.environment()["current"]["build"] == "web-1"
