"""What a push tells: how each build and deployment ended, or which command tells it."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from minuet.builders.push import Patience, Pusher, Update, changes, outcome, why_nothing
from minuet.launcher.client import Launcher

NEW = Update("0" * 40, "a" * 40, "refs/heads/main")
PLACE = "/api/v1/organizations/default/projects/shop"
BUILD = f"{PLACE}/components/web/builds/web-1"
DEPLOYMENT = {"id": "d-1", "generation": 3, "build": "web-1", "environment": "Development"}


class Answers(http.server.BaseHTTPRequestHandler):
    """A control plane that answers each path with the next of its answers, and with the last one from then on."""

    answers: dict[str, list[Any]]

    def do_GET(self) -> None:
        given = self.answers.get(self.path.partition("?")[0], [{}])
        answer = given.pop(0) if len(given) > 1 else given[0]
        self.send_response(answer if isinstance(answer, int) else 200)
        self.end_headers()
        if isinstance(answer, dict):
            self.wfile.write(json.dumps(answer).encode())
        elif isinstance(answer, str):
            self.wfile.write(answer.encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def answering(**answers: Any) -> Iterator[str]:
    handler = cast("type[Answers]", type("Handler", (Answers,), {"answers": answers}))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def state(phase: str = "Ready", **changes: Any) -> dict[str, Any]:
    return {"url": "http://web.localhost", "current": {**DEPLOYMENT, "phase": phase, "conditions": []} | changes}


def told(answers: dict[str, list[Any]], patience: Patience | None = None) -> list[str]:
    usual = {
        f"{PLACE}/pushes": [{"builds": [{"id": "web-1", "component": "web"}]}],
        f"{BUILD}/logs": ['event: line\ndata: {"phase": "build", "message": "compiling"}\n\nevent: end\ndata: {}\n\n'],
        BUILD: [{"status": "Succeeded"}],
        f"{PLACE}/components/web/deployments": [{"items": [DEPLOYMENT]}],
        f"{PLACE}/components/web/environments/Development": [state()],
    }

    async def listen(server: str) -> list[str]:
        pusher = Pusher(server, None, Launcher("/nowhere"), patience)
        return [line async for line in pusher.pushed("token", "default", "shop", Path("/x"), [NEW])]

    with answering(**(usual | answers)) as server:
        return asyncio.run(listen(server))


def test_a_push_ends_with_the_address() -> None:
    lines = told({})
    assert lines == ["Building web-1", "  build: compiling", "Built web-1", "Deploying to Development",
                     "Ready: http://web.localhost"]  # fmt: skip


def test_a_control_plane_that_is_away_for_a_moment_is_asked_again() -> None:
    assert told({BUILD: [503, 503, {"status": "Succeeded"}], f"{PLACE}/pushes": [503, {"builds": []}]})[-1]


def test_a_stream_that_breaks_is_no_end() -> None:
    lines = told(
        {BUILD: [{"status": "Building"}, {"status": "Building"}, {"status": "Failed", "reason": "CompileFailed"}]}
    )
    assert not any("failed: Building" in line for line in lines)
    assert "Build web-1 failed: CompileFailed: None" in lines


def test_a_deployment_that_another_one_replaced_is_told_and_not_waited_for() -> None:
    lines = told({f"{PLACE}/components/web/environments/Development": [state(id="d-2", generation=4)]})
    assert lines[-1].startswith("Superseded by d-2")


@pytest.mark.parametrize(
    ("answers", "patience", "command"),
    [
        ({BUILD: [{"status": "Building"}]}, Patience(build=0.3), "minuet describe build web-1"),
        (
            {f"{PLACE}/components/web/environments/Development": [state("Progressing")]},
            Patience(deployment=0.3),
            "minuet describe deployment d-1 --component web",
        ),
    ],
)
def test_what_takes_too_long_ends_with_the_command_that_tells_the_end(
    answers: dict[str, list[Any]], patience: Patience, command: str
) -> None:
    assert command in told(answers, patience)[-1]


def test_a_push_that_is_refused_says_so() -> None:
    assert told({f"{PLACE}/pushes": [404]}) == ["Pushed, but what comes of it is not known: refused"]


def test_an_older_state_says_nothing_of_a_deployment() -> None:
    assert outcome(state(id="d-0", generation=2), DEPLOYMENT) == ()
    assert outcome({"current": None}, DEPLOYMENT)


@pytest.mark.parametrize(
    ("components", "words"),
    [
        ([], "No component of shop builds from main"),
        ([{"name": "web", "autoBuild": True, "repository": {"branch": "next"}}], "No component of shop"),
        ([{"name": "web", "autoBuild": True, "repository": {"branch": "main", "url": "https://x"}}], "No component"),
        (
            [{"name": "web", "autoBuild": True, "repository": {"branch": "main"}}],
            "Nothing that web would be built from",
        ),
        ([{"name": "web", "autoBuild": False, "repository": {"branch": "main"}}], "web does not build by itself"),
    ],
)
def test_why_nothing_is_built_is_what_is_true(components: list[dict[str, Any]], words: str) -> None:
    assert words in why_nothing("main", "shop", components)


def test_a_list_of_changes_that_is_not_whole_counts_as_everything() -> None:
    assert changes(b"a\0b/c\0", 0) == {"changedPaths": ["a", "b/c"]}
    everything = {"changedPaths": [], "everything": True}
    assert changes(b"", 128) == changes(b"x\0" * 5001, 0) == changes(b"x" * 5000 + b"\0", 0) == everything
