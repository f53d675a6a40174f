"""The sample as a Git repository, pushed as a person would push it.

The same files always make the same commit, whenever and wherever: a push that
was interrupted is taken up by the next one, because both push the same thing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from minuet.kernel.errors import NotReady, Unavailable

_SECONDS = 600.0
_MOMENT = "2026-01-01T00:00:00+00:00"
_IDENTITY = {
    "GIT_AUTHOR_NAME": "Minuet",
    "GIT_AUTHOR_EMAIL": "minuet@localhost",
    "GIT_AUTHOR_DATE": _MOMENT,
    "GIT_COMMITTER_NAME": "Minuet",
    "GIT_COMMITTER_EMAIL": "minuet@localhost",
    "GIT_COMMITTER_DATE": _MOMENT,
}
Talk = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Remote:
    """Where to push: the address, the token that opens it, and the certificate that is believed there."""

    url: str
    token: str = field(repr=False)
    certificate: Path | None = None

    def environment(self) -> dict[str, str]:
        """Git's configuration as variables, which no process listing shows."""
        parts = urlsplit(self.url)
        place = f"http.{parts.scheme}://{parts.netloc}/"
        given = {f"{place}.extraHeader": f"Authorization: Bearer {self.token}"}
        if self.certificate is not None:
            given[f"{place}.sslCAInfo"] = str(self.certificate)
        variables = {"GIT_CONFIG_COUNT": str(len(given))}
        for number, (key, value) in enumerate(given.items()):
            variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return variables


class Push:
    """One push of a folder; `cancel` ends it from another thread."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._child: subprocess.Popen[str] | None = None
        self._cancelled = False

    def commit(self, source: Path) -> str:
        """Copies the files and commits them; returns the commit's id."""
        shutil.copytree(source, self._work, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        self._git("init", "-q", "-b", "main")
        self._git("add", "-A")
        self._git("commit", "-q", "-m", "Say hello")
        return self._git("rev-parse", "HEAD").strip()

    def send(self, remote: Remote, talk: Talk) -> bool:
        """Pushes, telling each line as it comes; returns whether the remote did not have the commit yet.

        What stands on the remote's branch is replaced: nothing but the sample is ever there.
        Raises `NotReady` when Git refuses or does not end.
        """
        arguments = ["push", "--porcelain", remote.url, "+main:main"]
        child = self._start(arguments, remote.environment())
        limit = threading.Timer(_SECONDS, child.kill)
        limit.start()
        try:
            with child:
                for line in child.stderr or ():
                    if line.strip():
                        talk(line.rstrip())
                said = child.stdout.read() if child.stdout else ""
        finally:
            limit.cancel()
        if child.returncode != 0:
            raise NotReady("the push of the first application failed", hint="the lines above say why")
        return not any(line.startswith("=") for line in said.splitlines())

    def cancel(self) -> None:
        """Ends a push that goes on, and lets no other begin."""
        self._cancelled = True
        if self._child is not None:
            self._child.terminate()

    def _git(self, *arguments: str) -> str:
        child = self._start(list(arguments), {})
        said, complaint = child.communicate(timeout=_SECONDS)
        if child.returncode != 0:
            raise NotReady(f"git {arguments[0]} failed: {complaint.strip()}")
        return said

    def _start(self, arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        """Git with none of this machine's own configuration; raises `Unavailable` where there is no Git."""
        variables = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self._work),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
        }
        try:
            child = subprocess.Popen(
                ["git", *arguments],
                cwd=self._work,
                env={**variables, **_IDENTITY, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        except FileNotFoundError as error:
            raise Unavailable("git is not installed", hint="install the package git") from error
        self._child = child
        if self._cancelled:
            child.terminate()
        return child
