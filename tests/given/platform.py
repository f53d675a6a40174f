"""A whole platform of real processes, started by the same command a person uses."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

MINUET = Path(sys.executable).with_name("minuet")


def free_port() -> int:
    """A TCP port of loopback that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def eventually(check: Callable[[], Any], deadline: float = 30.0, what: str = "", pause: float = 0.05) -> Any:
    """Calls `check` until it returns something true; fails with its last answer at the deadline."""
    end = time.monotonic() + deadline
    answer: Any = None
    while time.monotonic() < end:
        answer = check()
        if answer:
            return answer
        time.sleep(pause)  # between two looks, not the condition
    raise AssertionError(f"not within {deadline} s: {what or check}; last answer: {answer!r}")


class Held:
    """A command that goes on in a session of its own; what it says is kept in a file."""

    def __init__(self, command: list[str], environment: dict[str, str], said: Path) -> None:
        self._said = said
        with said.open("wb") as out:
            self.child = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    @property
    def said(self) -> str:
        return self._said.read_text(errors="replace")

    def until(self, words: str, deadline: float = 60.0) -> None:
        """Waits until it has said something."""
        eventually(lambda: words in self.said or self.child.poll() is not None, deadline, words)
        assert words in self.said, self.said

    def ends(self, deadline: float = 60.0) -> int:
        """Waits for its end; returns the exit code."""
        return self.child.wait(deadline)


class Platform:
    """One installation in a directory of its own; commands run as a person would run them."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.data = directory / "data"
        self.home = directory / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.ports = {"api": free_port(), "builder": free_port(), "gateway": free_port()}
        self.settings = settings

    def up(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.cli("up", "--detach", *self.flags(), *arguments, check=check)

    def flags(self) -> list[str]:
        ports = [f"--{name}-port={port}" for name, port in self.ports.items()]
        extra = [f"--{name.replace('_', '-')}={value}" for name, value in self.settings.items()]
        return [f"--data={self.data}", "--allow-local-repositories", *ports, *extra]

    def hold(self, *arguments: str) -> Held:
        """`minuet up` in the foreground, as in a terminal of its own."""
        return Held([*self.command(), "up", *self.flags(), *arguments], self.environment(), self.home / "terminal")

    def down(self) -> subprocess.CompletedProcess[str]:
        return self.cli("down", f"--data={self.data}", check=False)

    def cli(
        self, *arguments: str, check: bool = True, stdin: str | None = None, timeout: float = 170
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.command(), *arguments],
            env=self.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"minuet {' '.join(arguments)} exited with {done.returncode}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
            )
        return done

    def command(self) -> tuple[str, ...]:
        return (str(MINUET),)

    def environment(self) -> dict[str, str]:
        own = {"HOME": str(self.home), "MINUET_CONFIG": str(self.home / "contexts.toml"), "NO_COLOR": "1"}
        return {**os.environ, **own}

    def json(self, *arguments: str) -> Any:
        return json.loads(self.cli(*arguments, "-o", "json").stdout)

    @property
    def token(self) -> str:
        """The owner's."""
        return (self.data / "server/owner.token").read_text().strip()

    def call(self, path: str, body: object = None, method: str | None = None, timeout: float = 30) -> Any:
        """One request to the API of the default organization; raises `urllib.error.HTTPError` or `OSError`."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['api']}/api/v1/organizations/default/{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)

    def url(self, component: str, environment: str = "development", project: str = "shop", path: str = "/") -> str:
        return f"http://{component}--{project}--{environment}.localhost:{self.ports['gateway']}{path}"

    def fetch(self, url: str, timeout: float = 10) -> tuple[int, str]:
        """Requests a printed address; the name below `localhost` is this machine, as in a browser."""
        host = url.split("/")[2]
        request = urllib.request.Request(
            url.replace(host, f"127.0.0.1:{self.ports['gateway']}"), headers={"Host": host}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def processes(self) -> dict[int, str]:
        """Pid and command line of everything that belongs to this installation."""
        marks = (str(self.data), str(self.ports["gateway"]))
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                mounts = (entry / "mountinfo").read_text() if "/run/minuet" in command else ""
            except OSError:
                continue
            if any(mark in command for mark in marks) or str(self.data) in mounts:
                found[int(entry.name)] = command
        return found
