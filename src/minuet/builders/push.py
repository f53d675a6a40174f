"""What a push sets in motion, told line by line. A client of the public API with the pusher's own token.

Whatever happens, the last line says how it ended, or which command tells the
end: a push never waits longer than its deadlines.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minuet.builders.public_api import PublicApi
from minuet.kernel.errors import MinuetError, NotFound
from minuet.launcher.client import Launcher, Mount, SandboxCommand

_ZERO = "0" * 40
_MAX_PATHS, _MAX_PATH = 5000, 4096
_ENDED = ("Succeeded", "Failed", "Cancelled")
_SETTLED = ("Ready", "Failed", "Suspended", "Superseded")
_LOOKS = 50


@dataclass(frozen=True, slots=True)
class Update:
    """One changed reference, as Git's hook tells it."""

    before: str
    after: str
    ref: str

    @property
    def branch(self) -> str:
        return self.ref.removeprefix("refs/heads/")


@dataclass(frozen=True, slots=True)
class Rights:
    """What a token may do with the repository of which project."""

    project_id: str
    readable: bool
    writable: bool


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a push follows what it set in motion. Seconds."""

    build: float = 1200.0
    deployment: float = 300.0


class Pusher:
    """Asks the control plane on behalf of whoever pushes."""

    def __init__(
        self, server: str, fingerprint: str | None, launcher: Launcher, patience: Patience | None = None
    ) -> None:
        self._server = server
        self._fingerprint = fingerprint
        self._launcher = launcher
        self._patience = patience or Patience()

    async def rights(self, token: str, organization: str, project: str) -> Rights:
        """Raises `Unauthenticated`, `Forbidden`, `NotFound` or `Unavailable` as the control plane does."""
        answer = await self._api(token).get(f"/organizations/{organization}/projects/{project}/repository")
        return Rights(str(answer.get("projectId")), bool(answer.get("readable")), bool(answer.get("writable")))

    async def pushed(
        self, token: str, organization: str, project: str, repository: Path, updates: list[Update]
    ) -> AsyncIterator[str]:
        """Starts the builds that a push asks for and tells how they and their deployments end."""
        for update in updates:
            if update.after == _ZERO or not update.ref.startswith("refs/heads/"):
                continue
            story = _Story(self._api(token), f"/organizations/{organization}/projects/{project}", self._patience)
            body = {"ref": update.ref, "before": update.before, "after": update.after}
            try:
                async for line in story.told(update, body | await self._changed(repository, update)):
                    yield line
            except MinuetError as error:
                yield f"Pushed, but what comes of it is not known: {error.message}"

    def _api(self, token: str) -> PublicApi:
        return PublicApi(self._server, self._fingerprint, token)

    async def _changed(self, repository: Path, update: Update) -> dict[str, Any]:
        """The paths that differ between what was there and what was pushed, or that everything is to count as changed.

        Both sides of a renaming count, since each may lie in another component's folder.
        """
        if update.before == _ZERO:
            # The control plane knows a new branch by that, and builds all of it.
            return {"changedPaths": []}
        argv = ("/usr/bin/git", "--git-dir=/repository", "diff", "--no-renames", "--name-only", "-z")
        command = SandboxCommand(
            identity="git",
            argv=(*argv, update.before, update.after),
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
        try:
            async with await self._launcher.run(command) as running:
                said = b"".join([data async for data in running.output])
                ended = await running.wait()
        except MinuetError:
            return {"changedPaths": [], "everything": True}
        return changes(said, ended.code)


def changes(listed: bytes, code: int) -> dict[str, Any]:
    """What Git listed, as the control plane is told it; a list that is not whole counts as everything."""
    paths = [path.decode(errors="replace") for path in listed.split(b"\0") if path]
    if code != 0 or len(paths) > _MAX_PATHS or any(len(path) > _MAX_PATH for path in paths):
        return {"changedPaths": [], "everything": True}
    return {"changedPaths": paths}


class _Story:
    """What comes of one changed branch, line by line."""

    def __init__(self, api: PublicApi, place: str, patience: Patience) -> None:
        self._api = api
        self._place = place
        self._patience = patience

    async def told(self, update: Update, body: dict[str, Any]) -> AsyncIterator[str]:
        started = (await self._api.create(f"{self._place}/pushes", body)).get("builds", [])
        if not started:
            yield await self._why_nothing(update.branch)
        for build in started:
            async for line in self._build(build):
                yield line

    async def _why_nothing(self, branch: str) -> str:
        """Which is true: nothing builds from the branch, what does was not touched, or it does not build by itself."""
        items = (await self._api.get(f"{self._place}/components?limit=200")).get("items", [])
        return why_nothing(branch, self._place.rpartition("/")[2], items)

    async def _build(self, build: dict[str, Any]) -> AsyncIterator[str]:
        component, name = f"{self._place}/components/{build['component']}", build["id"]
        yield f"Building {name}"
        place = f"{component}/builds/{name}"
        deadline = asyncio.get_running_loop().time() + self._patience.build
        try:
            async for line in _before(deadline, self._lines(place)):
                yield line
            async with asyncio.timeout_at(deadline):
                ended = await self._api.until(place, f"{place}/events", lambda answer: answer.get("status") in _ENDED)
        except TimeoutError:
            yield f"Still building; `minuet describe build {name}` tells the end."
            return
        except NotFound:
            yield f"Build {name} was removed meanwhile."
            return
        if ended.get("status") != "Succeeded":
            yield f"Build {name} failed: {ended.get('reason')}: {ended.get('message')}"
            yield "The version that served before keeps serving."
            return
        yield f"Built {name}"
        async for line in self._deployment(component, name):
            yield line

    async def _lines(self, build: str) -> AsyncGenerator[str]:
        async for event, data in self._api.events(f"{build}/logs?follow=true"):
            if event == "line":
                yield f"  {data.get('phase', '')}: {data.get('message', '')}"

    async def _deployment(self, component: str, build: str) -> AsyncIterator[str]:
        """Follows the deployment that the build set off, if the component deploys by itself."""
        deployment = await self._deployed(component, build)
        if deployment is None:
            where, _, name = component.rpartition("/components/")
            words = f"{name} --project {where.rpartition('/')[2]} --build-id {build}"
            yield f"Not deployed: the component does not deploy by itself (`minuet create deployment {words}` does)."
            return
        yield f"Deploying to {deployment['environment']}"
        place = f"{component}/environments/{deployment['environment']}"
        try:
            async with asyncio.timeout(self._patience.deployment):
                state = await self._api.until(
                    place, f"{place}/events", lambda answer: bool(outcome(answer, deployment))
                )
        except TimeoutError:
            where, _, name = component.rpartition("/components/")
            project = where.rpartition("/")[2]
            command = f"minuet describe deployment {deployment['id']} --component {name} --project {project}"
            yield f"Not settled after {self._patience.deployment:.0f} s; `{command}` tells the end."
            return
        for line in outcome(state, deployment):
            yield line

    async def _deployed(self, component: str, build: str) -> dict[str, Any] | None:
        for _ in range(_LOOKS):
            page = await self._api.get(f"{component}/deployments?limit=5")
            for item in page.get("items", ()):
                if item.get("build") == build:
                    return dict(item)
            described = await self._api.get(component)
            if not described.get("autoDeploy"):
                return None
            await asyncio.sleep(0.1)
        return None


async def _before(deadline: float, lines: AsyncGenerator[str]) -> AsyncIterator[str]:
    """The lines until the deadline; raises `TimeoutError` then, and only to whoever waits for a line."""
    loop = asyncio.get_running_loop()
    async with contextlib.aclosing(lines):
        while True:
            try:
                line = await asyncio.wait_for(anext(lines), deadline - loop.time())
            except StopAsyncIteration:
                return
            yield line


def why_nothing(branch: str, project: str, components: list[dict[str, Any]]) -> str:
    """Says why a push to a branch started no build."""
    of_branch = [item for item in components if _builds_from(item.get("repository") or {}, branch)]
    willing = [str(item.get("name")) for item in of_branch if item.get("autoBuild")]
    if willing:
        return f"Nothing that {', '.join(willing)} would be built from has changed; nothing to build."
    if of_branch:
        name = of_branch[0].get("name")
        return f"{name} does not build by itself (`minuet create build {name}` does)."
    return f"No component of {project} builds from {branch}; nothing to build."


def _builds_from(repository: dict[str, Any], branch: str) -> bool:
    return repository.get("branch") == branch and not repository.get("url")


def outcome(state: dict[str, Any], deployment: dict[str, Any]) -> tuple[str, ...]:
    """The last lines for a deployment, once its environment's state says how it went; nothing before that."""
    current = state.get("current")
    if current is None:
        return ("Not deployed: the component was removed from that environment meanwhile.",)
    if current.get("id") != deployment["id"]:
        is_newer = int(current.get("generation", 0)) > int(deployment.get("generation", 0))
        return (f"Superseded by {current.get('id')}, which is followed where it was asked for.",) if is_newer else ()
    if current.get("phase") not in _SETTLED:
        return ()
    if current["phase"] == "Ready":
        return (f"Ready: {state.get('url') or 'it has no public address'}",)
    conditions = current.get("conditions", ())
    ready: dict[str, Any] = next((item for item in conditions if item.get("type") == "Ready"), {})
    return (
        f"Not deployed: {ready.get('reason', current['phase'])}: {ready.get('message', '')}",
        "The version that served before keeps serving.",
    )
