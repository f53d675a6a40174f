"""The first application: a sample, pushed with Git to the platform that was just started.

A client like any other: it uses the public API and `git push`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import minuet
from minuet.client.api import Api
from minuet.client.contexts import Context
from minuet.kernel.errors import Conflict, NotFound, NotReady
from minuet.server import roles
from minuet.server.installation import Installation

_PROJECT, _COMPONENT, _SAMPLE = "hello", "web", "python-hello"
_IDENTITY = {
    "GIT_AUTHOR_NAME": "Minuet",
    "GIT_AUTHOR_EMAIL": "minuet@localhost",
    "GIT_COMMITTER_NAME": "Minuet",
    "GIT_COMMITTER_EMAIL": "minuet@localhost",
}
Talk = Callable[[str], None]


def deploy(data: Path, chosen: Installation, talk: Talk) -> None:
    """Deploys the sample unless it is there already, and ends on the short screen of what to try next."""
    server = Api(Context(f"http://127.0.0.1:{chosen.api_port}", roles.owner_token(data)))
    component = server.organization("projects", _PROJECT, "components", _COMPONENT)
    if not _exists(server, component):
        _create(server)
        _push(server, data, talk)
    state = server.get(f"{component}/environments/development")
    if not state.get("url"):
        raise NotReady(
            "the first application is not deployed",
            hint=f"`minuet describe component {_COMPONENT} --project {_PROJECT}` shows why",
        )
    _screen(state["url"], chosen, talk)


def _exists(server: Api, component: str) -> bool:
    try:
        return bool(server.get(component)["environments"])
    except NotFound:
        return False


def _create(server: Api) -> None:
    with contextlib.suppress(Conflict):
        server.post(server.organization("projects"), {"name": _PROJECT, "displayName": "Hello"})
    body = {
        "name": _COMPONENT,
        "type": "service",
        "repository": {"branch": "main"},
        "buildConfigs": {"buildpack": "python", "buildPackLangVersion": "3.11"},
        "autoDeploy": True,
    }
    _until_buildpacks(server)
    with contextlib.suppress(Conflict):
        server.post(server.organization("projects", _PROJECT, "components"), body)


def _until_buildpacks(server: Api) -> None:
    """The builder registers a moment after the server answers."""
    import time

    for _ in range(200):
        if server.get(server.organization("buildpacks"))["items"]:
            return
        time.sleep(0.05)
    raise NotReady("no builder has registered", hint="its log is <data>/builder/log")


def _push(server: Api, data: Path, talk: Talk) -> None:
    source = Path(minuet.__file__).resolve().parents[2] / "samples" / _SAMPLE
    if not source.is_dir():
        raise NotFound("the samples are not installed", hint="run it from a checkout")
    url = server.get(server.organization("projects", _PROJECT, "repository"))["cloneUrl"]
    parts = urlsplit(url)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "hello"
        shutil.copytree(source, work)
        _git(work, "init", "-q", "-b", "main")
        _git(work, "add", "-A")
        _git(work, "commit", "-q", "-m", "Say hello")
        header = f"http.{parts.scheme}://{parts.netloc}/.extraHeader"
        token = roles.owner_token(data)
        talk(f"git push {url} main")
        secret = {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": header,
            "GIT_CONFIG_VALUE_0": f"Authorization: Bearer {token}",
        }
        done = _git(work, "push", url, "main", environment=secret, check=False)
        for line in done.stderr.splitlines():
            talk(line.rstrip())
        if done.returncode != 0:
            raise NotReady("the push of the first application failed", hint="the lines above say why")


def _git(
    work: Path, *arguments: str, environment: dict[str, str] | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Git with none of this machine's own configuration."""
    variables = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(work),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }
    return subprocess.run(
        ["git", *arguments],
        cwd=work,
        env={**variables, **_IDENTITY, **(environment or {})},
        capture_output=True,
        text=True,
        check=check,
        timeout=600,
    )


def _screen(url: str, chosen: Installation, talk: Talk) -> None:
    for line in (
        "",
        "Your first application runs:",
        f"  {url}",
        "The API and its documentation:",
        f"  http://127.0.0.1:{chosen.api_port}/docs",
        "Try next:",
        "  .venv/bin/minuet describe component web --project hello",
        "  .venv/bin/minuet logs web --project hello --env Development --follow",
        "  .venv/bin/minuet create deployment web --project hello --env Production",
        "",
        "Ctrl-C stops everything; the next start brings everything back.",
    ):
        talk(line)
