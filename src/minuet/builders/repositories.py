"""Hosted repositories: one bare repository per project, owned by Git's own uid.

Made on the first push. Their own hooks never run: every Git process that serves
them is told to look for hooks elsewhere.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from minuet.kernel.errors import Unavailable
from minuet.kernel.names import check_name
from minuet.launcher.client import Launcher, Mount, SandboxCommand

_ATTRIBUTES = "* -export-ignore -export-subst\n"
_SETTINGS = (
    "receive.fsckObjects=true",
    "receive.maxInputSize=536870912",
    "receive.denyDeleteCurrent=ignore",
    "http.receivepack=true",
    "gc.auto=0",
)
_SCRIPT = """\
set -e
git init -q --bare --initial-branch=main /repository
for setting in $SETTINGS; do
    git --git-dir=/repository config "${setting%%=*}" "${setting#*=}"
done
printf '%s' "$ATTRIBUTES" > /repository/info/attributes
"""


class Repositories:
    """The directory of all hosted repositories."""

    def __init__(self, directory: Path, launcher: Launcher) -> None:
        self._directory = directory
        self._launcher = launcher
        self._making = asyncio.Lock()
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o2771)

    def path(self, organization: str, project: str) -> Path:
        """Where a project's repository is or would be; raises `Invalid` for names that are none."""
        check_name("organization", organization)
        check_name("project", project)
        return self._directory / organization / f"{project}.git"

    async def ensure(self, organization: str, project: str) -> Path:
        """Returns the repository, made empty if it is not there yet."""
        path = self.path(organization, project)
        async with self._making:
            if not (path / "info" / "attributes").exists():
                await self._make(path)
        return path

    async def _make(self, path: Path) -> None:
        """Its last step writes the attributes, so that one that was cut short is made again."""
        for folder, mode in ((path.parent, 0o2771), (path, 0o2770)):
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)
        command = SandboxCommand(
            identity="git",
            argv=("/bin/sh", "-c", _SCRIPT),
            cwd="/repository",
            mounts=(Mount(str(path), "/repository", writable=True),),
            env={"SETTINGS": " ".join(_SETTINGS), "ATTRIBUTES": _ATTRIBUTES, "GIT_CONFIG_NOSYSTEM": "1"},
            memory=256 * 1024**2,
            seconds=30.0,
        )
        async with await self._launcher.run(command) as running:
            said = b"".join([data async for data in running.output])
            ended = await running.wait()
        if ended.code != 0:
            raise Unavailable(f"the repository could not be made: {said.decode(errors='replace')[-300:]}")
