"""The first application: a sample, pushed with Git to the platform that was just started.

A client like any other: it uses the public API and `git push`. Whatever an
earlier attempt left is taken up: a push that was interrupted, a build or a
deployment that failed.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import minuet
from minuet.client.api import Api
from minuet.kernel.errors import Conflict, MinuetError, NotFound, NotReady
from minuet.server import greeting, own_logs
from minuet.server.embedded import Talk
from minuet.server.first_push import Push, Remote
from minuet.server.installation import Installation

PROJECT, COMPONENT, SAMPLE = "sample", "hello", "python-hello"
_ENVIRONMENT = "development"
_READY_SECONDS = 60.0
_BUILD_SECONDS = 600.0
_BUILDER_SECONDS = 15.0
_LOOK_SECONDS = 0.2


class _Cancelled(Exception):
    """The platform is being stopped."""


class FirstApplication:
    """Deploys the sample; `held` says whether a terminal holds the platform, which decides how it is stopped."""

    def __init__(self, data: Path, chosen: Installation, talk: Talk, *, held: bool) -> None:
        self._data = data
        self._chosen = chosen
        self._talk = talk
        self._held = held
        self._cancelled = threading.Event()
        self._push: Push | None = None

    def cancel(self) -> None:
        """Ends it from another thread, with no word."""
        self._cancelled.set()
        if self._push is not None:
            self._push.cancel()

    def deploy_and_tell(self) -> None:
        """Ends on the short screen, or says what went wrong; raises nothing, because the platform goes on without it."""
        try:
            url = self.deploy()
        except _Cancelled:
            return
        except MinuetError as error:
            self._tell_failure(error.message, error.hint)
        except Exception as defect:  # noqa: BLE001 - told here, because nobody reads a thread's exception
            import traceback

            own_logs.append(self._data / own_logs.SUPERVISOR, traceback.format_exc())
            self._tell_failure(
                f"{type(defect).__name__}: {defect}", f"its traceback is in {self._data / own_logs.SUPERVISOR}"
            )
        else:
            for line in screen(url, self._chosen, held=self._held, data=self._data):
                self._talk(line)

    def _tell_failure(self, message: str, hint: str | None) -> None:
        if self._cancelled.is_set():
            return
        self._talk(f"The first application was not deployed: {message}")
        if hint:
            self._talk(f"  {hint}")
        self._talk("  the next start with --sample tries again")

    def deploy(self) -> str:
        """Returns the address once it answers; raises the error family with the reason and the next step."""
        server = Api(greeting.owner_context(self._data, self._chosen))
        component = server.organization("projects", PROJECT, "components", COMPONENT)
        current = _current(server, component)
        if current is None or current["phase"] == "Failed":
            self._create(server)
            commit, is_new = self._send(server)
            if is_new:
                _check_pushed(server, component)
            else:
                self._build_and_deploy(server, component, commit)
        return self._until_ready(server, component)

    def _create(self, server: Api) -> None:
        python = self._offer(server, "python")
        with contextlib.suppress(Conflict):
            server.post(server.organization("projects"), {"name": PROJECT, "displayName": "A first application"})
        body = {
            "name": COMPONENT,
            "type": "service",
            "repository": {"branch": "main"},
            "buildConfigs": {"buildpack": "python", "buildPackLangVersion": python["defaultVersion"]},
            "autoDeploy": True,
        }
        with contextlib.suppress(Conflict):
            server.post(server.organization("projects", PROJECT, "components"), body)

    def _offer(self, server: Api, buildpack: str) -> dict[str, Any]:
        """What the builder offers; it registers a moment after the server answers."""

        def look() -> dict[str, Any] | None:
            offers = server.get(server.organization("buildpacks"))["items"]
            return next((offer for offer in offers if offer["name"] == buildpack), None)

        late = NotReady(f"no builder offers {buildpack}", hint=f"its log is {self._data / 'builder' / 'log'}")
        found: dict[str, Any] = self._until(look, _BUILDER_SECONDS, late)
        return found

    def _send(self, server: Api) -> tuple[str, bool]:
        """Pushes the sample; returns the commit, and whether the repository did not have it yet."""
        source = Path(minuet.__file__).resolve().parents[2] / "samples" / SAMPLE
        if not source.is_dir():
            raise NotFound("the samples are not installed", hint="run it from a checkout")
        clone = server.get(server.organization("projects", PROJECT, "repository"))["cloneUrl"]
        certificate = self._data / "builder" / "tls" / "certificate.pem" if self._chosen.wants_tls else None
        remote = Remote(f"{self._chosen.builder_url}{urlsplit(clone).path}", server.context.token, certificate)
        with tempfile.TemporaryDirectory() as folder:
            push = self._push = Push(Path(folder) / "hello")
            self._check()
            commit = push.commit(source)
            self._talk(f"git push {remote.url} main")
            is_new = push.send(remote, self._talk)
        return commit, is_new

    def _build_and_deploy(self, server: Api, component: str, commit: str) -> None:
        """What the push would have set in motion, where an earlier one got only as far as the repository."""
        builds = server.get(f"{component}/builds", limit=20)["items"]
        of_commit = (item for item in builds if item.get("commit") in (commit, None))
        build = next((item for item in of_commit if item["status"] not in ("Failed", "Cancelled")), None)
        if build is None:
            build = server.post(f"{component}/builds", {"commit": commit})
        self._talk(f"The repository has this commit already; building {build['id']}")
        late = NotReady(f"the build {build['id']} does not end", hint=f"`{_describe()}` shows how it stands")
        ended = self._until(lambda: _ended(server, component, build["id"]), _BUILD_SECONDS, late)
        if ended["status"] != "Succeeded":
            raise _build_failed(ended)
        server.post(f"{component}/deployments", {"environment": _ENVIRONMENT, "build": build["id"]})

    def _until_ready(self, server: Api, component: str) -> str:
        """Waits for the address; raises `NotReady` with what stands in the way."""
        state: dict[str, Any] = {}

        def look() -> str | None:
            state.update(server.get(f"{component}/environments/{_ENVIRONMENT}"))
            phase = (state.get("current") or {}).get("phase")
            if phase == "Failed":
                raise _not_ready(state)
            return state.get("url") if phase == "Ready" else None

        try:
            return str(self._until(look, _READY_SECONDS, NotReady("it is not ready")))
        except NotReady as error:
            raise _not_ready(state) from error

    def _until(self, look: Callable[[], Any], seconds: float, late: NotReady) -> Any:
        """Looks again and again until there is something; raises `late` after that many seconds."""
        deadline = time.monotonic() + seconds
        while not (found := look()):
            if time.monotonic() > deadline:
                raise late
            self._cancelled.wait(_LOOK_SECONDS)
            self._check()
        return found

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise _Cancelled


def _current(server: Api, component: str) -> dict[str, Any] | None:
    """The deployment in Development, if there is one."""
    try:
        found: dict[str, Any] | None = server.get(f"{component}/environments/{_ENVIRONMENT}").get("current")
    except NotFound:
        return None
    return found


def _ended(server: Api, component: str, build: str) -> dict[str, Any] | None:
    found = server.get(f"{component}/builds/{build}")
    return found if found["status"] in ("Succeeded", "Failed", "Cancelled") else None


def _check_pushed(server: Api, component: str) -> None:
    """The push of something new has built already and deploys by itself; raises `NotReady` when that build failed."""
    newest = server.get(f"{component}/builds", limit=1)["items"]
    if newest and newest[0]["status"] in ("Failed", "Cancelled"):
        raise _build_failed(newest[0])


def _build_failed(build: dict[str, Any]) -> NotReady:
    step = next((item.get("nextStep") for item in build["conditions"] if item.get("nextStep")), None)
    return NotReady(
        f"the build {build['id']} {build['status'].lower()}: {build['reason']}: {build['message']}", hint=step
    )


def _not_ready(state: dict[str, Any]) -> NotReady:
    """What the conditions say: the first that is not true, for the later ones only wait for it."""
    told = [item for item in state.get("conditions") or [] if item["type"] != "InForce" and item["status"] != "True"]
    if not told:
        return NotReady("nothing was deployed", hint=f"`{_describe()}` shows why")
    first = next((item for item in told if item["reason"] != "Waiting"), told[0])
    return NotReady(
        f"{first['type']} is {first['status']}: {first['reason']}: {first['message']}",
        code=first["reason"],
        hint=first.get("nextStep") or f"`{_describe()}` shows more",
    )


def _describe() -> str:
    return f"{greeting.command()} describe component {COMPONENT} --project {PROJECT}"


def next_commands(chosen: Installation) -> list[str]:
    """Three commands to try, ready to be pasted into a shell in this folder."""
    name = greeting.command()
    lines = [
        f"{name} describe component {COMPONENT} --project {PROJECT}",
        f"{name} logs {COMPONENT} --project {PROJECT} --env Development --follow",
        f"{name} create deployment {COMPONENT} --project {PROJECT} --env Production",
    ]
    return lines if greeting.is_current(chosen) else [f"{name} context use {greeting.context_name(chosen)}", *lines]


def screen(url: str, chosen: Installation, *, held: bool, data: Path) -> list[str]:
    """The short screen at the end of a first start."""
    end = "Ctrl-C stops everything" if held else f"`{greeting.command()} down --data {data}` stops everything"
    return [
        "",
        "Your first application runs:",
        f"  {url}",
        "The API and its documentation:",
        f"  {chosen.public_api_url}/docs",
        "Try next:",
        *(f"  {line}" for line in next_commands(chosen)),
        "",
        f"{end}; the next start brings everything back.",
    ]
