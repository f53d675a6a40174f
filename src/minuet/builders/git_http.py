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
import errno
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from minuet.builders.push import Pusher, Update
from minuet.builders.repositories import Repositories
from minuet.kernel.errors import Forbidden, MinuetError, NotFound, Unauthenticated
from minuet.launcher.client import Command, Launcher, Mount, SandboxCommand

_HOOK = """\
#!/bin/sh
cat > /exchange/updates && exec cat /exchange/lines
"""
_FETCH, _PUSH = "git-upload-pack", "git-receive-pack"
_CHUNK = 64 * 1024
_HEAD_LIMIT = 16 * 1024
_PUSH_SECONDS = 1800.0
_MEMORY = 1024**3
_LOOK_SECONDS = 0.01


class GitFrontDoor:
    """Answers everything below `/git/`."""

    def __init__(self, repositories: Repositories, launcher: Launcher, pusher: Pusher, exchange: Path) -> None:
        self._repositories = repositories
        self._launcher = launcher
        self._pusher = pusher
        self._exchange = exchange
        exchange.mkdir(parents=True, exist_ok=True)
        exchange.chmod(0o2771)

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
        path = await self._repositories.ensure(organization, project)
        if request.method == "POST" and service == _PUSH:
            return await self._receive(request, path, token, organization, project)
        return await self._serve(request, path, "/" + request.path_params["rest"], ())

    async def _receive(self, request: Request, path: Path, token: str, organization: str, project: str) -> Response:
        folder = Path(tempfile.mkdtemp(dir=self._exchange))
        folder.chmod(0o2770)
        hooks = folder / "hooks"
        hooks.mkdir()
        hook = hooks / "post-receive"
        hook.write_text(_HOOK)
        for item, mode in ((hooks, 0o750), (hook, 0o750)):
            item.chmod(mode)
        pipes = folder / "pipes"
        pipes.mkdir()
        pipes.chmod(0o2770)
        for name in ("updates", "lines"):
            os.mkfifo(pipes / name)
            (pipes / name).chmod(0o660)
        talk = asyncio.create_task(self._talk(pipes, path, token, organization, project))
        mounts = (Mount(str(hooks), "/hooks"), Mount(str(pipes), "/exchange", writable=True))

        async def finish() -> None:
            talk.cancel()
            await asyncio.gather(talk, return_exceptions=True)
            await asyncio.to_thread(_remove, folder)

        return await self._serve(request, path, "/git-receive-pack", mounts, finish)

    async def _talk(self, pipes: Path, path: Path, token: str, organization: str, project: str) -> None:
        """Waits for the hook, does what the push asks for, and tells it line by line."""
        text = await _read_pipe(pipes / "updates")
        updates = [Update(*line.split(" ", 2)) for line in text.splitlines() if line.count(" ") >= 2]  # noqa: PLR2004
        writer = await _open_for_reader(pipes / "lines")
        try:
            async for line in self._pusher.pushed(token, organization, project, path, updates):
                await _write(writer, f"{line}\n".encode())
        finally:
            os.close(writer)

    async def _serve(
        self, request: Request, path: Path, inner: str, mounts: tuple[Mount, ...], finish: object = None
    ) -> Response:
        body_reader, body_writer = os.pipe()
        answer_reader, answer_writer = os.pipe()
        command = SandboxCommand(
            identity="git",
            argv=("/usr/lib/git-core/git-http-backend",),
            cwd="/repository",
            mounts=(Mount(str(path), "/repository", writable=True), *mounts),
            env=_environment(request, inner, hooks=bool(mounts)),
            memory=_MEMORY,
            seconds=_PUSH_SECONDS,
            conversation=True,
        )
        try:
            running = await self._launcher.run(command, stdin=body_reader, stdout=answer_writer)
        finally:
            os.close(body_reader)
            os.close(answer_writer)
        feeding = asyncio.create_task(_feed(request, body_writer))
        reader = await _stream(answer_reader)
        head = await _head(reader)

        async def body() -> AsyncIterator[bytes]:
            try:
                while data := await reader.read(_CHUNK):
                    yield data
            finally:
                feeding.cancel()
                await _end(running)
                if callable(finish):
                    await finish()

        status = int(head.pop("status", "200").split(" ")[0])
        return StreamingResponse(body(), status, head)


def _environment(request: Request, inner: str, *, hooks: bool) -> dict[str, str]:
    settings = {"safe.directory": "*", "core.hooksPath": "/hooks" if hooks else "/nonexistent"}
    variables = {
        "GIT_PROJECT_ROOT": "/",
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_CONFIG_NOSYSTEM": "1",
        "PATH_INFO": f"/repository{inner}",
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
    rest = request.path_params["rest"]
    asked = request.query_params.getlist("service") if request.method == "GET" and rest == "info/refs" else [rest]
    if asked not in ([_FETCH], [_PUSH]) or (rest == "info/refs") != (request.method == "GET"):
        raise NotFound("only the smart protocol is spoken here; use Git 1.6.6 or later")
    return str(asked[0])


def _token(request: Request) -> str:
    """The password of basic authentication, or a bearer token."""
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and value:
        return value
    if kind.lower() == "basic":
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            return base64.b64decode(value).decode().partition(":")[2]
    raise Unauthenticated("a Minuet token is needed as the password")


async def _feed(request: Request, descriptor: int) -> None:
    """Passes the request's body on; the sandbox's end of the pipe may close early."""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(OSError):
        try:
            async for chunk in request.stream():
                if chunk:
                    await _write(descriptor, chunk)
        finally:
            os.close(descriptor)


async def _write(descriptor: int, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            ready = loop.create_future()
            loop.add_writer(descriptor, ready.set_result, None)
            try:
                await ready
            finally:
                loop.remove_writer(descriptor)


async def _stream(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_CHUNK)
    file = os.fdopen(descriptor, "rb", buffering=0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    return reader


async def _read_pipe(path: Path) -> str:
    """All that is written into a named pipe by its first writer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    loop = asyncio.get_running_loop()
    parts: list[bytes] = []
    try:
        while True:
            ready = loop.create_future()
            loop.add_reader(descriptor, ready.set_result, None)
            try:
                await ready
            finally:
                loop.remove_reader(descriptor)
            with contextlib.suppress(BlockingIOError):
                if data := os.read(descriptor, _CHUNK):
                    parts.append(data)
                elif parts:
                    return b"".join(parts).decode(errors="replace")
    finally:
        os.close(descriptor)


async def _open_for_reader(path: Path) -> int:
    """Opens a named pipe for writing once somebody reads it: closed before that, the reader would wait for ever."""
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        await asyncio.sleep(_LOOK_SECONDS)


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


async def _end(running: Command) -> None:
    async with running:
        async for _ in running.output:
            continue
        await running.wait()


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
