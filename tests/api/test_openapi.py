"""The OpenAPI document is complete: a client can be generated from it. `test_operations.py` tries whether it is true."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest

from tests.given.servers import Server

IDENTIFIER = re.compile(r"[a-z][a-zA-Z]+")


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{server.url}/api/v1/openapi.json", trust_env=False).json()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_operation_is_named_once_and_described(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    for name, (method, path, operation) in zip(names, operations(document), strict=True):
        assert IDENTIFIER.fullmatch(name), name
        assert operation.get("description"), (method, path)
        assert operation["tags"], (method, path)


def test_every_operation_but_health_needs_a_token_and_tells_its_problems(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        if path in ("/healthz", "/readyz"):
            continue
        assert operation["security"] == [{"bearer": []}], (method, path)
        for status in ("401", "403", "422", "503"):
            content = operation["responses"][status]["content"]
            assert content["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    text = str(document)
    for name in set(re.findall(r"#/components/schemas/(\w+)", text)):
        assert name in document["components"]["schemas"]


def test_no_schema_is_named_after_a_module(document: dict[str, Any]) -> None:
    assert [
        name for name in document["components"]["schemas"] if not re.fullmatch(r"[A-Za-z]+(_[A-Za-z]+_)?", name)
    ] == []


def test_streams_describe_their_events(document: dict[str, Any]) -> None:
    found = {}
    for _, path, operation in operations(document):
        if path.endswith(("/logs", "/events")):
            content = operation["responses"]["200"]["content"]
            assert list(content) == ["text/event-stream"], path
            found[operation["operationId"]] = [
                item["$ref"].rpartition("/")[2] for item in content["text/event-stream"]["schema"]["anyOf"]
            ]
    assert found == {
        "readBuildLog": ["BuildLineEvent", "BuildEndEvent", "ErrorEvent"],
        "watchBuild": ["BuildEvent", "ErrorEvent"],
        "readLogs": ["LineEvent", "EndEvent", "ErrorEvent"],
        "watchComponentEnvironment": ["EnvironmentEvent", "EndEvent", "ErrorEvent"],
    }


def test_headers_are_described_where_they_mean_something(document: dict[str, Any]) -> None:
    named = {operation["operationId"]: (method, operation) for method, _, operation in operations(document)}
    for name, (method, operation) in named.items():
        given = {item["name"] for item in operation.get("parameters", [])}
        assert ("Idempotency-Key" in given) == (method == "post" and name != "takeLease"), name
        ok = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
        assert ("Idempotent-Replayed" in ok.get("headers", {})) == ("Idempotency-Key" in given), name
        if "If-Match" in given:
            assert "412" in operation["responses"], name
        for status in ("429", "503"):
            if status in operation["responses"]:
                assert "Retry-After" in operation["responses"][status]["headers"], name
    for name in ("getToken", "getEnvironment", "getPipeline", "getCredential", "getComponentEnvironment", "scale"):
        ok = next(answer for status, answer in named[name][1]["responses"].items() if status.startswith("2"))
        assert "ETag" in ok["headers"], name
    assert "415" in named["createToken"][1]["responses"]
    assert "415" not in named["redeploy"][1]["responses"]
