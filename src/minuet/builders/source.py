"""Phase fetch: a commit of a repository into the workspace, without trusting it or telling it anything."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from minuet.builders.failure import BuildFailure
from minuet.builders.tree import Tree
from minuet.builders.workshop import Done, Workshop
from minuet.kernel.secrets import Secret
from minuet.launcher.client import Mount
from minuet.protocol.building import BuildOrder, RepositoryCredential

_BRANCH = re.compile(r"(?!-)[A-Za-z0-9._/+@-]{1,200}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LIMIT_KIB = 1024 * 1024

_SCRIPT = """\
set -e
# Only Git's global configuration may say this, and only it reaches the process that reads the mounted repository.
git config --global safe.directory '*'
cd /source
git init -q .
if [ -n "$COMMIT" ]; then
    git fetch -q --no-tags --no-recurse-submodules --depth 1 "$REPOSITORY" "$COMMIT" 2>/dev/null \
        || git fetch -q --no-tags --no-recurse-submodules "$REPOSITORY" "+refs/heads/$BRANCH:refs/remotes/origin/head" >&2
    git -c advice.detachedHead=false checkout -q --detach "$COMMIT" >&2
else
    git fetch -q --no-tags --no-recurse-submodules --depth 1 "$REPOSITORY" "refs/heads/$BRANCH" >&2
    git -c advice.detachedHead=false checkout -q --detach FETCH_HEAD >&2
fi
git log -1 --format='%H%n%an%n%s'
rm -rf .git
"""

_CONFIG = {
    "core.hooksPath": "/nonexistent",
    "core.symlinks": "true",
    "protocol.ext.allow": "never",
    "transfer.fsckObjects": "true",
    "filter.lfs.smudge": "",
    "filter.lfs.required": "false",
    "credential.helper": "",
    "gc.auto": "0",
}

_COMPLAINTS: tuple[tuple[str, str, str], ...] = (
    (r"could not find remote branch|couldn't find remote ref", "BranchNotFound", "there is no branch {branch}"),
    (r"unable to read tree|reference is not a tree|not our ref", "BranchNotFound", "there is no commit {commit}"),
    (
        r"could not read Username|Authentication failed|Permission denied \(publickey|error: 401|403|terminal prompts",
        "AuthenticationRequired",
        "{repository} asks for credentials",
    ),
    (
        r"not found|does not appear to be a git repository|does not exist|error: 404|No such file",
        "RepositoryNotFound",
        "there is no repository at {repository}",
    ),
    (
        r"Could not resolve|Connection refused|timed out|Failed to connect|CONNECT tunnel failed|502|unable to access",
        "RepositoryUnreachable",
        "{repository} does not answer",
    ),
    (r"No space left|file too large", "RepositoryTooLarge", "the repository does not fit"),
)


@dataclass(frozen=True, slots=True)
class Fetched:
    """The commit that was checked out, and the component's directory in it."""

    commit: str
    author: str
    message: str
    root: Path


async def fetch(workshop: Workshop, order: BuildOrder, hosted: Path, *, local_allowed: bool) -> Fetched:
    """Checks out the order's commit; raises `BuildFailure` saying what stood in the way."""
    _check(order)
    if order.repository is None:
        return await _fetch_hosted(workshop, order, hosted)
    url, mounts, hosts = _place(order, local_allowed=local_allowed)
    workshop.log.say(f"Fetching {order.commit or order.branch} of {order.repository or 'the hosted repository'}")
    mounts = (*mounts, Mount(str(workshop.path / "source"), "/source", writable=True))
    environment = _environment(url, order)
    done = await workshop.run(
        ("/bin/sh", "-c", _SCRIPT), mounts=mounts, cwd="/source", environment=environment, hosts=hosts, listen=True
    )
    if done.exit.code != 0:
        raise _explain(order, "\n".join(workshop.log.tail))
    commit, author, message = (*done.output.split("\n"), "", "")[:3]
    return Fetched(commit.strip(), author[:200], message[:500], _directory(workshop.path / "source", order.directory))


def _check(order: BuildOrder) -> None:
    if not _BRANCH.fullmatch(order.branch) or ".." in order.branch:
        raise BuildFailure("BranchNotFound", f"{order.branch!r} is not the name of a branch")
    if order.commit and not _COMMIT.fullmatch(order.commit):
        raise BuildFailure("BranchNotFound", f"{order.commit!r} is not the full name of a commit")


async def _fetch_hosted(workshop: Workshop, order: BuildOrder, hosted: Path) -> Fetched:
    """A hosted repository belongs to another uid: Git writes an archive there, the build's own uid unpacks it."""
    if not hosted.is_dir():
        raise BuildFailure("RepositoryNotFound", "nothing has been pushed to the hosted repository yet")
    workshop.log.say(f"Taking {order.commit or order.branch} of the hosted repository")
    git = ("/usr/bin/git", "--git-dir=/repository")
    reference = order.commit or f"refs/heads/{order.branch}"
    environment = _environment("file:///repository", order)
    environment |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    place: dict[str, Any] = {
        "mounts": (Mount(str(hosted), "/repository"),),
        "cwd": "/repository",
        "environment": environment,
        "identity": "git",
    }
    told = await workshop.run((*git, "log", "-1", "--format=%H%n%an%n%s", reference), listen=True, **place)
    if told.exit.code != 0:
        raise BuildFailure("BranchNotFound", f"there is no {order.commit or order.branch} in the hosted repository")
    commit, author, message = (*told.output.split("\n"), "", "")[:3]
    reader, writer = os.pipe2(os.O_CLOEXEC)
    target = Mount(str(workshop.path / "source"), "/source", writable=True)
    giving = workshop.run((*git, "archive", "--format=tar", commit), stdout=writer, **place)
    taking = workshop.run(("/bin/tar", "-x", "--no-same-owner"), mounts=(target,), cwd="/source", stdin=reader)
    given, taken = await asyncio.gather(_and_close(giving, writer), _and_close(taking, reader))
    if given.exit.code or taken.exit.code:
        raise BuildFailure("RepositoryUnreachable", "the hosted repository could not be read")
    return Fetched(commit, author[:200], message[:500], _directory(workshop.path / "source", order.directory))


async def _and_close(running: Awaitable[Done], descriptor: int) -> Done:
    """Closes our end of the pipe with the command that used it, so that the other one sees its end."""
    try:
        return await running
    finally:
        os.close(descriptor)


def _place(order: BuildOrder, *, local_allowed: bool) -> tuple[str, tuple[Mount, ...], frozenset[str]]:
    """Where Git finds the repository: its URL inside the sandbox, what is mounted for it, which host it needs."""
    assert order.repository is not None  # noqa: S101 - a hosted one is taken by `_fetch_hosted`
    parts = urlsplit(order.repository)
    if parts.scheme == "file":
        path = Path(parts.path)
        if not local_allowed:
            raise BuildFailure("RepositoryUnreachable", "repositories of this machine are not allowed as a source")
        if not _is_there(path):
            raise BuildFailure("RepositoryNotFound", f"the builder finds no repository at {order.repository}")
        return "file:///repository", (Mount(str(path), "/repository"),), frozenset()
    host = parts.hostname or ""
    return order.repository, (), frozenset({host.lower()})


def _is_there(path: Path) -> bool:
    """Whether the builder's own uid can see a folder of this machine."""
    try:
        return path.is_dir()
    except PermissionError:
        return False


def _environment(url: str, order: BuildOrder) -> dict[str, str]:
    config = dict(_CONFIG)
    if order.credential and order.credential.token:
        config[f"http.{_origin(url)}.extraHeader"] = _authorization(order.credential)
    variables = {
        "REPOSITORY": url,
        "BRANCH": order.branch,
        "COMMIT": order.commit or "",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_ALLOW_PROTOCOL": "file:http:https:ssh",
        "GIT_CONFIG_COUNT": str(len(config)),
    }
    for index, (key, value) in enumerate(config.items()):
        variables |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
    return variables


def hidden(order: BuildOrder) -> tuple[Secret, ...]:
    """What must never appear in the log of this build."""
    if order.credential is None:
        return ()
    values = (order.credential.token, order.credential.deploy_key)
    return tuple(Secret(value) for value in values if value)


def _authorization(credential: RepositoryCredential) -> str:
    import base64

    pair = f"{credential.username}:{credential.token}".encode()
    return f"Authorization: Basic {base64.b64encode(pair).decode()}"


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/"


def _directory(source: Path, directory: str) -> Path:
    wanted = directory.strip("/") or "."
    if not Tree(source).is_directory(wanted):
        raise BuildFailure("DirectoryNotFound", f"the directory {directory} is not in that commit")
    return source if wanted == "." else source / wanted


def _explain(order: BuildOrder, said: str) -> BuildFailure:
    fields = {"branch": order.branch, "commit": order.commit, "repository": order.repository or "that address"}
    for pattern, reason, message in _COMPLAINTS:
        if re.search(pattern, said, re.IGNORECASE):
            return BuildFailure(reason, message.format(**fields))
    return BuildFailure("RepositoryUnreachable", f"{fields['repository']} could not be fetched")
