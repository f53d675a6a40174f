"""Git's smart protocol over HTTP: who may, asked of the control plane; the work, done by Git in a sandbox.

A push is answered while it is being built: a hook of ours, the only one that
ever runs, hands the changed references out of the sandbox and passes the lines
that come back to the person who pushes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from minuet.builders import pipes
from minuet.builders.push import Pusher, Update
from minuet.builders.repositories import Repositories
from minuet.kernel.errors import Forbidden, MinuetError, NotFound, Unauthenticated
from minuet.launcher.client import Command, Launcher, Mount, SandboxCommand

_HOOK = """\
#!/bin/sh
cat > /exchange/updates && exec cat /exchange/lines
"""
_FETCH, _PUSH = "git-upload-pack", "git-receive-pack"
_HEAD_LIMIT = 16 * 1024
_PUSH_SECONDS = 1800.0
_MEMORY = 1024**3
_GRACE_SECONDS = 10.0
_MAX_UPDATES = 4 * 1024**2


@dataclass(frozen=True, slots=True)
class _Push:
    """Who pushes what where."""

    path: Path
    token: str
    organization: str
    project: str


class GitFrontDoor:
    """Answers everything below `/git/`."""

    def __init__(self, repositories: Repositories, launcher: Launcher, pusher: Pusher, exchange: Path) -> None:
        self._repositories = repositories
        self._launcher = launcher
        self._pusher = pusher
        self._exchange = exchange
        self._endings: set[asyncio.Task[None]] = set()
        exchange.mkdir(parents=True, exist_ok=True)
        exchange.chmod(0o2771)

    def sweep(self) -> None:
        """Removes what pushes left that a builder before this one did not end."""
        for folder in self._exchange.iterdir():
            shutil.rmtree(folder, ignore_errors=True)

    async def __call__(self, request: Request) -> Response:
        try:
            return await self._answer(request)
        except Unauthenticated as error:
            return PlainTextResponse(f"{error.message}\n", 401, {"WWW-Authenticate": 'Basic realm="Minuet"'})
        except (Forbidden, NotFound) as error:
            return PlainTextResponse(f"{error.message}\n", 403 if isinstance(error, Forbidden) else 404)
        except MinuetError as error:
            return PlainTextResponse(f"{error.message}\n", 503)

    async def _answer(self, request: Request) -> Response:
        organization, project = request.path_params["organization"], request.path_params["project"]
        service = _service(request)
        token = _token(request)
        rights = await self._pusher.rights(token, organization, project)
        if not (rights.writable if service == _PUSH else rights.readable):
            raise Forbidden("this token may only read" if rights.readable else "this token may not read it")
        self._repositories.adopt(organization, project, rights.project_id)
        path = await self._repositories.ensure(rights.project_id)
        push = _Push(path, token, organization, project) if _rest(request) == _PUSH else None
        return await self._serve(request, path, push)

    async def _serve(self, request: Request, path: Path, push: _Push | None) -> Response:
        """Runs Git over the request; what that needs ends with the answer, whatever ends it, last made first."""
        async with contextlib.AsyncExitStack() as ending:
            mounts = [Mount(str(path), "/repository", writable=True)]
            folder = await asyncio.to_thread(_make_exchange, self._exchange) if push else self._exchange
            if push:
                ending.push_async_callback(asyncio.to_thread, shutil.rmtree, folder, ignore_errors=True)
                mounts.append(Mount(str(folder / "hooks"), "/hooks"))
                mounts.append(Mount(str(folder / "pipes"), "/exchange", writable=True))
            running, body, answer = await self._start(request, tuple(mounts))
            ending.push_async_callback(_end, running)
            if push:
                ending.push_async_callback(_cancel, asyncio.create_task(self._talk(folder / "pipes", push)))
            ending.callback(body.close)
            feeding = asyncio.create_task(_feed(request, body))
            ending.push_async_callback(_cancel, feeding)
            reader, transport = await pipes.stream(answer)
            ending.callback(transport.close)
            head = await _head(reader)
            return _Answer(reader, feeding, head, functools.partial(self._finish, ending.pop_all()))

    async def _finish(self, ending: contextlib.AsyncExitStack) -> None:
        """Ends what an answer needed, in a task of its own: the one that answers may be cancelled, and cannot wait."""
        task = asyncio.create_task(ending.aclose())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        await asyncio.shield(task)

    async def _talk(self, folder: Path, push: _Push) -> None:
        """Waits for the hook, does what the push asks for, and tells it line by line."""
        text = await pipes.read_all(folder / "updates", _MAX_UPDATES)
        updates = [Update(*line.split(" ", 2)) for line in text.splitlines() if line.count(" ") >= 2]  # noqa: PLR2004
        writer = await pipes.open_for_reader(folder / "lines")
        try:
            async for line in self._pusher.pushed(push.token, push.organization, push.project, push.path, updates):
                await pipes.write(writer, f"{line}\n".encode())
        finally:
            os.close(writer)

    async def _start(self, request: Request, mounts: tuple[Mount, ...]) -> tuple[Command, IO[bytes], int]:
        """Starts Git; returns it, where its input is written, and where its output is read."""
        command = SandboxCommand(
            identity="git",
            argv=("/usr/lib/git-core/git-http-backend",),
            cwd="/repository",
            mounts=mounts,
            env=_environment(request),
            memory=_MEMORY,
            seconds=_PUSH_SECONDS,
            conversation=True,
        )
        inward, body = os.pipe2(os.O_CLOEXEC)
        answer, outward = os.pipe2(os.O_CLOEXEC)
        try:
            running = await self._launcher.run(command, stdin=inward, stdout=outward)
        except BaseException:
            os.close(body)
            os.close(answer)
            raise
        finally:
            os.close(inward)
            os.close(outward)
        return running, os.fdopen(body, "wb", buffering=0), answer


class _Answer(StreamingResponse):
    """What Git says. Its request's body is still coming in meanwhile, over the channel that tells of a disconnect."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        feeding: asyncio.Task[None],
        head: dict[str, str],
        finish: Callable[[], Awaitable[None]],
    ) -> None:
        status = int(head.pop("status", "200").split(" ")[0])
        super().__init__(_chunks(reader), status, head)
        self._feeding = feeding
        self._finish = finish

    async def listen_for_disconnect(self, receive: Receive) -> None:
        """Waits until the whole body was passed on: a part of it that were read here would be lost to Git."""
        await asyncio.wait((self._feeding,))
        await super().listen_for_disconnect(receive)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._finish()


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await reader.read(pipes.CHUNK):
        yield data


def _make_exchange(place: Path) -> Path:
    """A folder for one push: the hook, and the two pipes over which it speaks and is spoken to."""
    folder = Path(tempfile.mkdtemp(dir=place))
    folder.chmod(0o2770)
    hooks, pipes_of_hook = folder / "hooks", folder / "pipes"
    hooks.mkdir()
    hook = hooks / "post-receive"
    hook.write_text(_HOOK)
    for item in (hooks, hook):
        item.chmod(0o750)
    pipes_of_hook.mkdir()
    pipes_of_hook.chmod(0o2770)
    for name in ("updates", "lines"):
        os.mkfifo(pipes_of_hook / name)
        (pipes_of_hook / name).chmod(0o660)
    return folder


def _environment(request: Request) -> dict[str, str]:
    settings = {"safe.directory": "*", "core.hooksPath": "/hooks"}
    variables = {
        "GIT_PROJECT_ROOT": "/",
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_CONFIG_NOSYSTEM": "1",
        "PATH_INFO": f"/repository/{_rest(request)}",
        "QUERY_STRING": request.url.query,
        "REQUEST_METHOD": request.method,
        "REMOTE_USER": "pusher",
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
        "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    if length := request.headers.get("content-length"):
        variables["CONTENT_LENGTH"] = length
    for index, (key, value) in enumerate(settings.items()):
        variables |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
    return variables


def _service(request: Request) -> str:
    """Fetch or push: read off the one place that Git itself goes by, so that nothing else can claim to be the other."""
    rest = _rest(request)
    asked = request.query_params.getlist("service") if request.method == "GET" and rest == "info/refs" else [rest]
    if asked not in ([_FETCH], [_PUSH]) or (rest == "info/refs") != (request.method == "GET"):
        raise NotFound("only the smart protocol is spoken here; use Git 1.6.6 or later")
    return str(asked[0])


def _rest(request: Request) -> str:
    return str(request.path_params["rest"])


def _token(request: Request) -> str:
    """The password of basic authentication, or a bearer token."""
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and value:
        return value
    if kind.lower() == "basic":
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            return base64.b64decode(value).decode().partition(":")[2]
    raise Unauthenticated("a Minuet token is needed as the password")


async def _feed(request: Request, body: IO[bytes]) -> None:
    """Passes the request's body on; the sandbox's end of the pipe may close early."""
    os.set_blocking(body.fileno(), False)
    with contextlib.suppress(OSError, ClientDisconnect), body:
        async for chunk in request.stream():
            if chunk:
                await pipes.write(body.fileno(), chunk)


async def _head(reader: asyncio.StreamReader) -> dict[str, str]:
    """The header lines of a CGI answer."""
    fields: dict[str, str] = {}
    size = 0
    while (line := await reader.readline()) not in (b"\r\n", b"\n", b""):
        size += len(line)
        if size > _HEAD_LIMIT:
            break
        name, _, value = line.decode("latin-1").partition(":")
        fields[name.strip().lower()] = value.strip()
    return fields or {"status": "500 no answer"}


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _end(running: Command) -> None:
    """Waits for Git, which by now has neither input nor a reader; after a while it is killed."""
    async with running:
        with contextlib.suppress(TimeoutError, MinuetError):
            async with asyncio.timeout(_GRACE_SECONDS):
                async for _ in running.output:
                    continue
                await running.wait()
