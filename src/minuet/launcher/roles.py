"""The long-lived parts of the platform, each under its own uid with a fixed command line.

Requests of the supervisor (and of the agent, for the gateway) arrive through
`main.py`. A role that ends unasked is started again with back-off. Roles
outlive the launcher: their marks are recorded, and the next launcher watches
the ones that still live.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from minuet.kernel.errors import MinuetError, NotFound, Unavailable
from minuet.kernel.retry import Backoff, next_attempt
from minuet.launcher import processes, requests, storage, wire
from minuet.launcher.identities import Identities, Identity
from minuet.launcher.loop import Loop
from minuet.launcher.namespaces import Program
from minuet.launcher.settings import Layout, Settings, write_whole

Reply = Callable[[wire.Message], None]
_STEADY_SECONDS = 10.0
_ROTATE_EVERY = 1.0
_PIECE = 1024 * 1024
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(slots=True)
class Role:
    """One role as the launcher knows it."""

    name: str
    wanted: bool = False
    mark: processes.ProcessMark | None = None
    started_at: float | None = None
    restarts: int = 0
    exit_code: int | None = None
    attempts: int = 0
    seen_since: float = 0.0
    """The monotonic second at which this launcher started the running process or found it running."""

    gone: list[Callable[[], None]] = field(default_factory=list)


class Roles:
    """All roles of one installation."""

    def __init__(
        self, loop: Loop, layout: Layout, settings: Settings, identities: Identities, program: Program
    ) -> None:
        self._loop = loop
        self._layout = layout
        self._settings = settings
        self._identities = identities
        self._program = program
        self._roles: dict[str, Role] = {}
        self._changes = 0
        self._waiting: list[Reply] = []
        self._closing = False

    def adopt(self) -> None:
        """Watches the roles that outlived the last launcher and starts again those that did not."""
        with contextlib.suppress(OSError, ValueError, KeyError, MinuetError):
            for record in json.loads(self._layout.roles.read_bytes()):
                mark = requests.build(processes.ProcessMark, record["mark"], "mark") if record["mark"] else None
                role = Role(record["name"], record["wanted"], None, record["started_at"], record["restarts"])
                self._roles[role.name] = role
                if mark and processes.alive(mark):
                    role.mark, role.seen_since = mark, time.monotonic()
                    self._loop.watch_process(mark.pid, lambda code, role=role: self._ended(role, code))  # type: ignore[misc]
                elif role.wanted:
                    self._launch(role)
        self._loop.after(_ROTATE_EVERY, self._rotate)

    def start(self, name: str, reply: Reply) -> None:
        """Idempotent; answers as soon as the process runs."""
        if self._closing:
            raise Unavailable("the launcher is shutting down", code="ShuttingDown")
        if not self._settings_file(name).exists():
            raise NotFound(f"{name} has no settings file", code="SettingsNotFound", hint=f"write {name}/settings.toml")
        role = self._roles.setdefault(name, Role(name))
        role.wanted = True
        if role.mark is None:
            role.attempts = 0
            self._launch(role)
        reply(self._described(role))

    def stop(self, request: requests.StopRole, reply: Reply) -> None:
        """SIGTERM, grace, SIGKILL to its process group; answered when it is gone."""
        role = self._roles.get(request.role)
        if role is None or role.mark is None:
            if role:
                role.wanted = False
                self._changed()
            reply({})
            return
        role.gone.append(lambda: reply({}))
        self._end(role, request.grace)

    def listing(self, request: requests.ListRoles, reply: Reply) -> None:
        """With `after`, waits for a change that the asker has not seen."""
        if request.after is not None and request.after >= self._changes:
            self._waiting.append(reply)
            return
        reply(self._overview())

    def close(self, grace: float, done: Callable[[], None]) -> None:
        self._closing = True
        living = {role.name for role in self._roles.values() if role.mark is not None}
        if not living:
            done()

        def one_less(name: str) -> None:
            living.discard(name)
            if not living:
                done()

        for name in sorted(living):
            role = self._roles[name]
            role.gone.append(lambda name=name: one_less(name))  # type: ignore[misc]
            self._end(role, grace)

    def _end(self, role: Role, grace: float) -> None:
        role.wanted = False
        self._changed()
        mark = role.mark
        if mark is None:
            return
        processes.send(mark, signal.SIGTERM)
        self._loop.after(max(grace, 0.0), lambda: self._kill(role, mark))

    def _kill(self, role: Role, mark: processes.ProcessMark) -> None:
        if role.mark == mark and processes.alive(mark):
            processes.kill_group(mark.pid, signal.SIGKILL)

    def _launch(self, role: Role) -> None:
        identity = self._identities.of_role(role.name)
        storage.hand_over(self._layout.data / role.name, identity)
        pid = os.fork()
        if pid == 0:
            self._become(role.name, identity)
        role.mark = processes.mark_of(pid)
        role.started_at, role.seen_since = time.time(), time.monotonic()
        self._loop.watch_process(pid, lambda code: self._ended(role, code))
        self._changed()

    def _become(self, name: str, identity: Identity) -> NoReturn:
        """Never returns: executes the role with a clean environment."""
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.umask(0o027)
            log = self._open_log(name, identity)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for target, fd in ((0, nothing), (1, log), (2, log)):
                os.dup2(fd, target)
            os.chdir("/")
            identity.assume()
            argv = [self._program.executable, "-m", "minuet", name, "--settings", str(self._settings_file(name))]
            home = {"HOME": str(self._layout.data / name), "PATH": f"{self._program.programs}:{_SEARCH_PATH}"}
            # One arena of memory instead of one per thread: the roles allocate little beside their event loop.
            fixed = {
                "LANG": "C.UTF-8",
                "PYTHONUNBUFFERED": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                "MALLOC_ARENA_MAX": "1",
            }
            os.execve(argv[0], argv, home | fixed | self._program.environment)  # noqa: S606 - no shell is wanted
        except BaseException as error:  # noqa: BLE001 - a forked child must end here, whatever happened
            os.write(2, f"minuet: cannot start {name}: {error}\n".encode())
        os._exit(127)

    def _open_log(self, name: str, identity: Identity) -> int:
        folder = os.open(self._layout.data / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        fd = os.open("log", flags, 0o640, dir_fd=folder)
        os.fchown(fd, identity.uid, identity.gid)
        os.close(folder)
        return fd

    def _ended(self, role: Role, code: int | None) -> None:
        mark, role.mark, role.exit_code = role.mark, None, code
        if mark:
            # What a role started and left behind goes with it, except the gateway's and the shims' own sessions.
            processes.kill_group(mark.pid, signal.SIGKILL)
        if role.wanted and not self._closing:
            role.attempts = next_attempt(role.attempts, time.monotonic() - role.seen_since, _STEADY_SECONDS)
            self._loop.after(Backoff().delay(role.attempts), lambda: self._again(role))
        self._changed()
        for callback in role.gone:
            callback()
        role.gone.clear()

    def _again(self, role: Role) -> None:
        if role.wanted and role.mark is None and not self._closing:
            role.restarts += 1
            self._launch(role)

    def _changed(self) -> None:
        self._changes += 1
        records = [
            {
                "name": role.name,
                "wanted": role.wanted,
                "mark": dataclasses.asdict(role.mark) if role.mark else None,
                "started_at": role.started_at,
                "restarts": role.restarts,
            }
            for role in self._roles.values()
        ]
        write_whole(self._layout.roles, json.dumps(records).encode())
        waiting, self._waiting = self._waiting, []
        for reply in waiting:
            reply(self._overview())

    def _overview(self) -> wire.Message:
        return {"change": self._changes, "roles": [self._described(role) for role in self._roles.values()]}

    def _described(self, role: Role) -> dict[str, Any]:
        return {
            "role": role.name,
            "pid": role.mark.pid if role.mark else None,
            "wanted": role.wanted,
            "started_at": role.started_at,
            "restarts": role.restarts,
            "exit_code": role.exit_code,
            "log": str(self._layout.data / role.name / "log"),
        }

    def _settings_file(self, name: str) -> Path:
        return self._layout.data / name / "settings.toml"

    def _rotate(self) -> None:
        """Keeps each log below its limit: copied to `log.1`, then emptied in place, for the writer keeps it open."""
        self._loop.after(_ROTATE_EVERY, self._rotate)
        for name in self._roles:
            with contextlib.suppress(OSError):
                _rotate(self._layout.data / name, self._settings.role_log_bytes)


def _rotate(folder: Path, limit: int) -> None:
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        source = os.open("log", flags, dir_fd=folder_fd)
        with os.fdopen(source, "r+b", buffering=0) as log:
            size = os.fstat(source).st_size
            if size < limit:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink("log.1", dir_fd=folder_fd)
            target = os.open("log.1", flags | os.O_CREAT | os.O_EXCL, 0o640, dir_fd=folder_fd)
            with os.fdopen(target, "wb", buffering=0) as older:
                log.seek(max(0, size - limit))
                left = limit
                while left and (piece := log.read(min(left, _PIECE))):
                    left -= older.write(piece)
                owner = os.fstat(source)
                os.fchown(target, owner.st_uid, owner.st_gid)
            log.truncate(0)
    finally:
        os.close(folder_fd)
