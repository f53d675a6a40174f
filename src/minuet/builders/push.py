"""What a push sets in motion, told line by line. A client of the public API with the pusher's own token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from minuet.infra import http
from minuet.kernel.errors import Forbidden, NotFound, Unauthenticated, Unavailable
from minuet.launcher.client import Launcher, Mount, SandboxCommand

_ZERO = "0" * 40
_MAX_PATHS = 5000
_ENDED = ("Succeeded", "Failed", "Cancelled")
_SETTLED = ("Ready", "Failed", "Suspended", "Superseded")


@dataclass(frozen=True, slots=True)
class Update:
    """One changed reference, as Git's hook tells it."""

    before: str
    after: str
    ref: str


@dataclass(frozen=True, slots=True)
class Rights:
    """What a token may do with a repository."""

    readable: bool
    writable: bool


class Pusher:
    """Asks the control plane on behalf of whoever pushes."""

    def __init__(self, server: str, fingerprint: str | None, launcher: Launcher) -> None:
        self._server = server.rstrip("/")
        self._fingerprint = fingerprint
        self._launcher = launcher

    async def rights(self, token: str, organization: str, project: str) -> Rights:
        """Raises `Unauthenticated`, `Forbidden`, `NotFound` or `Unavailable` as the control plane does."""
        answer = await self._call(token, "GET", f"/organizations/{organization}/projects/{project}/repository")
        return Rights(bool(answer.get("readable")), bool(answer.get("writable")))

    async def pushed(
        self, token: str, organization: str, project: str, repository: Path, updates: list[Update]
    ) -> AsyncIterator[str]:
        """Starts the builds that a push asks for and tells how they and their deployments end."""
        for update in updates:
            if update.after == _ZERO or not update.ref.startswith("refs/heads/"):
                continue
            async for line in self._one(token, organization, project, repository, update):
                yield line

    async def _one(
        self, token: str, organization: str, project: str, repository: Path, update: Update
    ) -> AsyncIterator[str]:
        place = f"/organizations/{organization}/projects/{project}"
        body = {
            "ref": update.ref,
            "before": update.before,
            "after": update.after,
            "changedPaths": await self._changed(repository, update),
        }
        try:
            started = (await self._call(token, "POST", f"{place}/pushes", body)).get("builds", [])
        except (Unavailable, NotFound, Forbidden, Unauthenticated) as error:
            yield f"Pushed, but not built: {error.message}"
            return
        if not started:
            yield f"No component of {project} builds from {update.ref.removeprefix('refs/heads/')}; nothing to build."
        for build in started:
            async for line in self._follow(token, place, build):
                yield line

    async def _follow(self, token: str, place: str, build: dict[str, Any]) -> AsyncIterator[str]:
        component = f"{place}/components/{build['component']}"
        yield f"Building {build['id']}"
        async for event, data in self._events(token, f"{component}/builds/{build['id']}/logs?follow=true"):
            if event == "line":
                yield f"  {data.get('phase', '')}: {data.get('message', '')}"
        ended = await self._until_ended(token, f"{component}/builds/{build['id']}")
        if ended.get("status") != "Succeeded":
            yield f"Build {build['id']} failed: {ended.get('reason')}: {ended.get('message')}"
            yield "The version that served before keeps serving."
            return
        yield f"Built {build['id']}"
        async for line in self._deployment(token, component, build["id"]):
            yield line

    async def _until_ended(self, token: str, path: str) -> dict[str, Any]:
        answer = await self._call(token, "GET", path)
        if answer.get("status") in _ENDED:
            return answer
        async for _, data in self._events(token, f"{path}/events"):
            if data.get("status") in _ENDED:
                return data
        return await self._call(token, "GET", path)

    async def _deployment(self, token: str, component: str, build: str) -> AsyncIterator[str]:
        """Follows the deployment that the build set off, if the component deploys by itself."""
        deployment = await self._deployed(token, component, build)
        if deployment is None:
            where, _, name = component.rpartition("/components/")
            words = f"{name} --project {where.rpartition('/')[2]} --build-id {build}"
            yield f"Not deployed: the component does not deploy by itself (`minuet create deployment {words}` does)."
            return
        environment = f"{component}/environments/{deployment['environment']}"
        yield f"Deploying to {deployment['environment']}"
        async for _, state in self._events(token, f"{environment}/events"):
            current = state.get("current") or {}
            if current.get("id") != deployment["id"] or current.get("phase") not in _SETTLED:
                continue
            if current["phase"] == "Ready":
                yield f"Ready: {state.get('url') or 'it has no public address'}"
                return
            condition: dict[str, Any] = next((c for c in current.get("conditions", ()) if c.get("type") == "Ready"), {})
            yield f"Not deployed: {condition.get('reason', current['phase'])}: {condition.get('message', '')}"
            yield "The version that served before keeps serving."
            return

    async def _deployed(self, token: str, component: str, build: str) -> dict[str, Any] | None:
        for _ in range(50):
            page = await self._call(token, "GET", f"{component}/deployments?limit=5")
            for item in page.get("items", ()):
                if item.get("build") == build:
                    return dict(item)
            described = await self._call(token, "GET", component)
            if not described.get("autoDeploy"):
                return None
            await asyncio.sleep(0.1)
        return None

    async def _changed(self, repository: Path, update: Update) -> list[str]:
        """The paths that differ between what was there and what was pushed; everything for a new branch."""
        if update.before == _ZERO:
            argv = ("/usr/bin/git", "--git-dir=/repository", "ls-tree", "-r", "--name-only", "-z", update.after)
        else:
            argv = ("/usr/bin/git", "--git-dir=/repository", "diff", "--name-only", "-z", update.before, update.after)
        command = SandboxCommand(
            identity="git",
            argv=argv,
            cwd="/repository",
            mounts=(Mount(str(repository), "/repository"),),
            env={
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "GIT_CONFIG_NOSYSTEM": "1",
            },
            memory=512 * 1024**2,
            seconds=60.0,
        )
        async with await self._launcher.run(command) as running:
            said = b"".join([data async for data in running.output])
            await running.wait()
        return [path.decode(errors="replace") for path in said.split(b"\0") if path][:_MAX_PATHS]

    async def _call(self, token: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        try:
            async with http.client(fingerprint=self._fingerprint) as client:
                answer = await client.request(method, f"{self._server}/api/v1{path}", headers=headers, json=body)
        except (httpx2.HTTPError, OSError) as error:
            raise Unavailable("the control plane does not answer", hint="try again in a moment") from error
        if answer.status_code >= 400:  # noqa: PLR2004 - the first status that is an error
            raise _refusal(answer.status_code, answer.content)
        document: dict[str, Any] = answer.json() if answer.content else {}
        return document

    async def _events(self, token: str, path: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Server-sent events until their end; a stream that breaks simply ends."""
        headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
        try:
            async with (
                http.client(fingerprint=self._fingerprint, read_seconds=60.0) as client,
                client.stream("GET", f"{self._server}/api/v1{path}", headers=headers) as answer,
            ):
                event = "message"
                async for line in answer.aiter_lines():
                    if line.startswith("event:"):
                        event = line[6:].strip()
                    elif line.startswith("data:"):
                        yield event, json.loads(line[5:])
                    if event == "end":
                        return
        except (httpx2.HTTPError, OSError, ValueError):
            return


def _refusal(status: int, content: bytes) -> Exception:
    try:
        message = str(json.loads(content).get("detail") or "refused")
    except ValueError:
        message = "refused"
    family = {401: Unauthenticated, 403: Forbidden, 404: NotFound}.get(status, Unavailable)
    return family(message)
