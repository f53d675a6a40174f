"""Hosted repositories: one bare repository per project, owned by Git's own uid.

Made on the first push. Their own hooks never run: every Git process that serves
them is told to look for hooks elsewhere.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from minuet.kernel.errors import Unavailable, invalid_field
from minuet.kernel.names import check_name
from minuet.launcher.client import Launcher, Mount, SandboxCommand

_ATTRIBUTES = "* -export-ignore -export-subst\n"
_SETTINGS = (
    "receive.fsckObjects=true",
    # Old tools wrote these, and a history cannot be changed any more; they mislead nobody.
    "receive.fsck.zeroPaddedFilemode=ignore",
    "receive.fsck.missingSpaceBeforeDate=ignore",
    "receive.fsck.missingSpaceBeforeEmail=ignore",
    "receive.fsck.badTimezone=ignore",
    "receive.maxInputSize=536870912",
    "receive.denyDeleteCurrent=ignore",
    "http.receivepack=true",
    "gc.auto=0",
)
_ID = re.compile(r"[a-z0-9]+_[a-z0-9_]{1,60}")
_SUFFIX = ".git"
_REMOVAL_SECONDS = 300.0
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

    def path(self, project_id: str) -> Path:
        """Where a project's repository is or would be; raises `Invalid` for what is no id.

        The id and not the name: a name may be another project's one day, which
        must not find there what this one left.
        """
        if not _ID.fullmatch(project_id):
            raise invalid_field("project", "must be the id of a project", given=project_id)
        return self._directory / f"{project_id}{_SUFFIX}"

    def adopt(self, organization: str, project: str, project_id: str) -> Path:
        """Where a project's repository is; one that is still kept under names, as it was once, is taken over."""
        check_name("organization", organization)
        check_name("project", project)
        old, path = self._directory / organization / f"{project}{_SUFFIX}", self.path(project_id)
        if old.is_dir() and not path.exists():
            old.rename(path)
        return path

    def projects(self, before: float) -> frozenset[str]:
        """The ids of the projects whose repository is there and was made before that time."""
        found = [path for path in self._directory.glob(f"*{_SUFFIX}") if path.stat().st_mtime < before]
        return frozenset(path.name.removesuffix(_SUFFIX) for path in found)

    async def remove(self, project_id: str) -> None:
        """Removes a repository; what is in it is removed by Git's own uid, whose it is."""
        path = self.path(project_id)
        await self._run(path, ("/usr/bin/find", "/repository", "-mindepth", "1", "-delete"), {}, _REMOVAL_SECONDS)
        path.rmdir()

    async def ensure(self, project_id: str) -> Path:
        """Returns the repository, made empty if it is not there yet."""
        path = self.path(project_id)
        async with self._making:
            if not (path / "info" / "attributes").exists():
                await self._make(path)
        return path

    async def _make(self, path: Path) -> None:
        """Its last step writes the attributes, so that one that was cut short is made again."""
        path.mkdir(exist_ok=True)
        path.chmod(0o2770)
        settings = {"SETTINGS": " ".join(_SETTINGS), "ATTRIBUTES": _ATTRIBUTES, "GIT_CONFIG_NOSYSTEM": "1"}
        await self._run(path, ("/bin/sh", "-c", _SCRIPT), settings, 30.0)

    async def _run(self, path: Path, argv: tuple[str, ...], environment: dict[str, str], seconds: float) -> None:
        command = SandboxCommand(
            identity="git",
            argv=argv,
            cwd="/repository",
            mounts=(Mount(str(path), "/repository", writable=True),),
            env=environment,
            memory=256 * 1024**2,
            seconds=seconds,
        )
        async with await self._launcher.run(command) as running:
            said = b"".join([data async for data in running.output])
            ended = await running.wait()
        if ended.code != 0:
            raise Unavailable(f"the repository could not be changed: {said.decode(errors='replace')[-300:]}")
