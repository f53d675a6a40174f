"""The OpenAPI document tells the truth: every operation is tried with what it allows and with what it does not.

What the operations are about really exists: a shop that was built and deployed,
so that more than 404 is seen. `MINUET_API_EXAMPLES` sets how often each operation
is tried, in each of both modes; the suite's own number keeps its time short.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import checks

from tests.given import agents, servers, shops
from tests.given.builders import Builder, problem
from tests.given.servers import Server
from tests.given.shops import Shop

EXAMPLES = int(os.environ.get("MINUET_API_EXAMPLES", "4"))
POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
CURSORS = [
    "\u00b2",
    "9" * 300,
    "-1",
    "1.5",
    "",
    "\ud800",
    "a\nb",
    "\x00",
    5,
    None,
    ["x"],
    "\u0661",
    "x/y/z",
    "\U0001f600",
]
FREE_TEXT = ("cursor", "since", "Last-Event-ID", "Idempotency-Key", "If-Match")
"""Parameters whose schema allows more than means something: a cursor must come from the page before."""


@dataclass
class World:
    """A built and deployed shop, its agent, and the document with its names in the paths."""

    shop: Shop
    document: dict[str, Any]
    names: dict[str, str]

    def path(self, template: str) -> str:
        return template.format(**self.names).removeprefix("/api/v1")

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for path, methods in self.document["paths"].items():
            for method, operation in methods.items():
                yield method, path, operation


@pytest.fixture(scope="module")
def world(server: Server) -> Iterator[World]:
    document: dict[str, Any] = httpx2.get(f"{server.url}/api/v1/openapi.json", trust_env=False).json()
    builder = Builder(server)
    builder.register()
    shop = shops.shop(servers.tenant(server), builder)
    client, base = shop.tenant.client, shop.tenant.path
    client.post(f"{base}/credentials", json={"name": "forge", "kind": "token", "token": "x"}).raise_for_status()
    client.post(f"{base}/tokens", json={"name": "spare", "readOnly": True}).raise_for_status()
    client.post(f"{base}/pipelines", json={"name": "side", "environments": ["development"]}).raise_for_status()
    shop.build()
    with agents.agent(server) as agent:
        agent.project = shop.project
        current = shop.deploy_ready(agent)["current"]
        names = {
            "organization": shop.tenant.name,
            "project": shop.project,
            "component": "web",
            "environment": "development",
            "build": "web-1",
            "release": current["release"],
            "deployment": current["id"],
            "credential": "forge",
            "token": "spare",
            "pipeline": "side",
            "data_plane": "default",
            "lease": "lea_none",
        }
        yield World(shop, document, names)


def test_every_path_parameter_is_a_name_that_exists(world: World) -> None:
    for method, path, _ in world.operations():
        if method == "get" and "/logs" not in path and "/events" not in path and "/api/v1" in path:
            assert world.shop.tenant.client.get(world.path(path)).status_code in (200, 409), path


def test_no_operation_is_open_to_those_without_a_valid_token(server: Server, world: World) -> None:
    with httpx2.Client(base_url=f"{server.url}/api/v1", trust_env=False) as client:
        for method, path, operation in world.operations():
            if "security" not in operation:
                continue
            for headers in ({}, {"Authorization": "Bearer mno_nobody"}, {"Authorization": "Basic eDp5"}):
                answer = client.request(method, world.path(path), headers=headers)
                assert (answer.status_code, problem(answer)["family"]) == (401, "Unauthenticated"), (method, path)


def test_a_method_that_a_path_does_not_have_names_those_it_has(world: World) -> None:
    for path, methods in world.document["paths"].items():
        if "/api/v1" not in path:
            continue
        for method in {"get", "put", "post", "patch", "delete", "trace"} - set(methods):
            answer = world.shop.tenant.client.request(method, world.path(path))
            assert answer.status_code == 405, (method, path)
            assert {name.lower() for name in answer.headers["allow"].split(", ")} <= set(methods) | {"head"}


def test_no_list_takes_a_made_up_cursor(world: World) -> None:
    tried = 0
    for method, path, operation in world.operations():
        if any(item["name"] == "cursor" for item in operation.get("parameters", [])):
            tried += 1
            place = world.path(path)
            for key in CURSORS:
                text = json.dumps([f"/api/v1{place}", key]).encode()
                cursor = base64.urlsafe_b64encode(text).decode().rstrip("=")
                answer = world.shop.tenant.client.request(method, place, params={"cursor": cursor})
                assert answer.status_code in (200, 422), (path, key, answer.text)
    assert tried >= 10


def test_no_text_may_hold_what_no_database_keeps(world: World) -> None:
    tried = 0
    for method, path, operation in world.operations():
        schema = _body_schema(world.document, operation)
        if "/builder/" in path or schema is None:
            continue
        for name, value in schema["properties"].items():
            if "string" in str(value):
                tried += 1
                for odd in ("a\x00", "a\ud800"):
                    content = json.dumps({name: odd})
                    headers = {"Content-Type": "application/json"}
                    answer = world.shop.tenant.client.request(
                        method, world.path(path), content=content, headers=headers
                    )
                    assert answer.status_code in (403, 422), (path, name, answer.text)
    assert tried >= 30


def _body_schema(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any] | None:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return None
    schema = content["schema"]
    schema = next((item for item in schema.get("anyOf", ()) if "$ref" in item), schema)
    found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


@pytest.mark.parametrize("mode", [POSITIVE, NEGATIVE])
def test_no_operation_fails_or_answers_what_it_does_not_document(
    server: Server, world: World, mode: schemathesis.GenerationMode
) -> None:
    schema = schemathesis.openapi.from_dict(_pinned(world, mode))
    headers = {"Authorization": f"Bearer {world.shop.tenant.token}"}
    # What deletes comes last, what is further down first, or nothing would be left to try.
    found = sorted(
        (result.ok() for result in schema.get_all_operations()),
        key=lambda operation: (operation.method.lower() == "delete", -operation.path.count("/")),
    )
    tried = 0
    with requests.Session() as session:
        for operation in found:

            @settings(
                max_examples=EXAMPLES, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
            )
            def attempt(case: schemathesis.Case) -> None:
                nonlocal tried
                tried += 1
                _try(case, server, headers, session, mode)

            # Where nothing can be wrong, nothing wrong can be made.
            with contextlib.suppress(Unsatisfiable):
                given(case=operation.as_strategy(generation_mode=mode))(attempt)()
    assert tried >= EXAMPLES * 10


def _try(
    case: schemathesis.Case,
    server: Server,
    headers: dict[str, str],
    session: requests.Session,
    mode: schemathesis.GenerationMode,
) -> None:
    documented = case.operation.definition.raw["responses"]
    if any("text/event-stream" in (answer.get("content") or {}) for answer in documented.values()):
        # A stream may go on for ever; what counts is how it begins.
        request = case.as_transport_kwargs(base_url=server.url, headers=headers)
        with session.request(**request, stream=True, timeout=30) as answer:
            assert str(answer.status_code) in documented, (case.operation.label, answer.status_code)
            kind = "text/event-stream" if answer.ok else "application/problem+json"
            assert answer.headers["content-type"].startswith(kind)
        return
    left_out = [checks.ignored_auth, checks.unsupported_method]  # tried one by one above
    # What a body may hold is narrower than its schema: names that are taken, what suits the state of things.
    if mode is not POSITIVE or case.operation.method.lower() != "get":
        left_out.append(checks.positive_data_acceptance)
    if mode is not NEGATIVE:
        left_out.append(checks.negative_data_rejection)
    case.call_and_validate(base_url=server.url, headers=headers, session=session, excluded_checks=left_out)


def _pinned(world: World, mode: schemathesis.GenerationMode) -> dict[str, Any]:
    """Returns the document with the names of what exists in place of free ones."""
    document = copy.deepcopy(world.document)
    for path in document["paths"].values():
        for operation in path.values():
            kept = []
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    parameter["schema"] = {"type": "string", "enum": [world.names[parameter["name"]]]}
                if mode is NEGATIVE or parameter["name"] not in FREE_TEXT:
                    kept.append(parameter)
            operation["parameters"] = kept
    inputs = document["components"]["schemas"]
    inputs["DeploymentInput"]["properties"]["environment"] = {"type": "string", "enum": ["development", "production"]}
    inputs["DeploymentInput"]["properties"]["build"] = {"type": "string", "enum": ["web-1"]}
    inputs["RollbackInput"]["properties"]["to"] = {"type": "string", "enum": [world.names["release"]]}
    return document
