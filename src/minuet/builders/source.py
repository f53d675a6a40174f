"""Phase fetch: a commit of a repository into the workspace, without trusting it or telling it anything."""

from __future__ import annotations

import asyncio
import base64
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
from minuet.infra.files import write_secret
from minuet.infra.http import Guard, public_only
from minuet.kernel.secrets import Secret
from minuet.launcher.client import Mount
from minuet.protocol.building import BuildOrder, RepositoryCredential

_BRANCH = re.compile(r"(?!-)[A-Za-z0-9._/+@-]{1,200}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SCP = re.compile(r"(?:[A-Za-z0-9._-]+@)?([A-Za-z0-9.-]+):(?!/{2})[^:]+")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SYSTEM_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")

_SCRIPT = """\
set -e
umask 0077
if [ -n "$KEY" ]; then
    printf '%s\n' "$KEY" > /tmp/key
    printf '%s' "$TUNNEL" > /tmp/tunnel.py
    printf '%s' "$KNOWN_HOSTS" > /tmp/known_hosts
fi
unset KEY KNOWN_HOSTS TUNNEL
umask 0007
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
[ ! -f /tmp/known_hosts ] || cat /tmp/known_hosts
"""

_TUNNEL = """\
import os, select, socket, sys
proxy = socket.create_connection(("127.0.0.1", 3128))
proxy.sendall(f"CONNECT {sys.argv[1]}:{sys.argv[2]} HTTP/1.1\\r\\n\\r\\n".encode())
head = b""
while not head.endswith(b"\\r\\n\\r\\n"):
    byte = proxy.recv(1)
    if not byte:
        sys.exit("the proxy closed the connection")
    head += byte
if b" 200 " not in head.split(b"\\r\\n")[0]:
    sys.exit("CONNECT tunnel failed: " + head.split(b"\\r\\n")[0].decode())
sources = [0, proxy.fileno()]
while sources:
    for ready in select.select(sources, [], [])[0]:
        data = os.read(ready, 65536)
        if not data:
            sources.remove(ready)
            if ready != 0:
                sys.exit(0)
            proxy.shutdown(socket.SHUT_WR)
        elif ready == 0:
            proxy.sendall(data)
        else:
            while data:
                data = data[os.write(1, data):]
"""
"""Carries ssh through the only way out of the sandbox."""

_SSH = (
    "ssh -F /dev/null -i /tmp/key -o IdentitiesOnly=yes -o BatchMode=yes -o ConnectTimeout=15"
    " -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=/tmp/known_hosts -o HashKnownHosts=no"
    " -o UpdateHostKeys=no -o ForwardAgent=no -o PermitLocalCommand=no"
    " -o ProxyCommand='/usr/bin/python3 -I -S /tmp/tunnel.py %h %p'"
)

_CONFIG = {
    "core.hooksPath": "/nonexistent",
    "core.symlinks": "true",
    "protocol.ext.allow": "never",
    "transfer.fsckObjects": "true",
    "fetch.fsck.zeroPaddedFilemode": "ignore",
    "fetch.fsck.missingSpaceBeforeDate": "ignore",
    "fetch.fsck.missingSpaceBeforeEmail": "ignore",
    "fetch.fsck.badTimezone": "ignore",
    "filter.lfs.smudge": "",
    "filter.lfs.required": "false",
    "credential.helper": "",
    "gc.auto": "0",
}

_COMPLAINTS: tuple[tuple[str, str, str], ...] = (
    (r"No space left|file too large|died of signal 25", "RepositoryTooLarge", "the repository is larger than allowed"),
    (
        r"IDENTIFICATION HAS CHANGED|Host key verification failed",
        "RepositoryUnreachable",
        "{repository} shows another host key than before; if that is right, an operator removes the old one",
    ),
    (r"could not find remote branch|couldn't find remote ref", "BranchNotFound", "there is no branch {branch}"),
    (r"unable to read tree|reference is not a tree|not our ref", "BranchNotFound", "there is no commit {commit}"),
    (
        r"could not read (?:Username|Password)|Authentication failed|Permission denied \(|error: 40[13]|error in libcrypto",
        "AuthenticationRequired",
        "{repository} {unauthorized}",
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
)


@dataclass(frozen=True, slots=True)
class Fetched:
    """The commit that was checked out, and the component's directory in it."""

    commit: str
    author: str
    message: str
    root: Path
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sources:
    """What an installation allows and remembers of repositories."""

    hosted: Path
    known_hosts: Path
    """Keys of ssh hosts that an organization's builds have met: trusted at first sight, held to from then on."""
    local_allowed: bool = False
    private_networks: tuple[str, ...] = ()

    @property
    def guard(self) -> Guard | None:
        """Which addresses a repository's host may have: people write its name, and it must not lead inside."""
        return None if self.local_allowed else public_only(self.private_networks)


async def fetch(workshop: Workshop, order: BuildOrder, sources: Sources) -> Fetched:
    """Checks out the order's commit; raises `BuildFailure` saying what stood in the way."""
    _check(order)
    try:
        if order.repository is None:
            return await _fetch_hosted(workshop, order, sources.hosted)
        return await _fetch_remote(workshop, order, order.repository, sources)
    except BuildFailure as failure:
        if failure.reason != "BuildDiskFull":
            raise
        size = order.limits.disk // 2**20
        raise BuildFailure("RepositoryTooLarge", f"the repository takes more than {size} MiB") from failure


async def _fetch_remote(workshop: Workshop, order: BuildOrder, repository: str, sources: Sources) -> Fetched:
    workshop.log.say(f"Fetching {order.commit or order.branch} of {repository}")
    url, mounts, hosts = _place(repository, sources)
    mounts = (*mounts, Mount(str(workshop.path / "source"), "/source", writable=True))
    environment = _environment(url, order)
    if order.credential and order.credential.deploy_key:
        known = await asyncio.to_thread(_read, sources.known_hosts)
        environment |= {"KEY": order.credential.deploy_key.strip(), "TUNNEL": _TUNNEL, "KNOWN_HOSTS": known}
        environment["GIT_SSH_COMMAND"] = _SSH
    elif not url.startswith(("file:", "http:", "https:")):
        raise BuildFailure("AuthenticationRequired", f"{repository} is read by ssh, which needs a deploy key")
    done = await workshop.run(
        ("/bin/sh", "-c", _SCRIPT), mounts=mounts, cwd="/source", environment=environment, hosts=hosts,
        guard=sources.guard, listen=True,
    )  # fmt: skip
    if done.exit.code != 0:
        raise done.forbidden() or _explain(order, workshop.log.said)
    told, _, met = done.output.partition("\n")[2].partition("\n")[2].partition("\n")
    if met.strip():
        await asyncio.to_thread(write_secret, sources.known_hosts, met.encode())
    commit, author = done.output.split("\n")[:2]
    return _fetched(workshop, order, commit, author, told)


def _fetched(workshop: Workshop, order: BuildOrder, commit: str, author: str, message: str) -> Fetched:
    root = _directory(workshop.path / "source", order.directory)
    modules = Tree(workshop.path / "source").has(".gitmodules")
    warnings = ("submodules are not fetched; their folders are empty",) if modules else ()
    return Fetched(commit.strip(), _plain(author)[:200], _plain(message)[:500], root, warnings)


def _plain(text: str) -> str:
    return _UNPRINTABLE.sub(" ", text).strip()


def _read(path: Path) -> str:
    own = path.read_text() if path.exists() else ""
    system = _SYSTEM_KNOWN_HOSTS.read_text(errors="replace") if _SYSTEM_KNOWN_HOSTS.exists() else ""
    return "\n".join(dict.fromkeys(line for line in (system + "\n" + own).splitlines() if line.strip())) + "\n"


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
    reader, writer = os.pipe()
    target = Mount(str(workshop.path / "source"), "/source", writable=True)
    giving = workshop.run((*git, "-c", "tar.umask=0007", "archive", "--format=tar", commit), stdout=writer, **place)
    taking = workshop.run(("/bin/tar", "-x", "--no-same-owner"), mounts=(target,), cwd="/source", stdin=reader)
    given, taken = await asyncio.gather(_and_close(giving, writer), _and_close(taking, reader))
    if given.exit.code or taken.exit.code:
        raise BuildFailure("RepositoryUnreachable", "the hosted repository could not be read")
    return _fetched(workshop, order, commit, author, message)


async def _and_close(running: Awaitable[Done], descriptor: int) -> Done:
    """Closes our end of the pipe with the command that used it, so that the other one sees its end."""
    try:
        return await running
    finally:
        os.close(descriptor)


def _place(repository: str, sources: Sources) -> tuple[str, tuple[Mount, ...], frozenset[str]]:
    """Where Git finds the repository: its URL inside the sandbox, what is mounted for it, which host it needs."""
    if "://" not in repository and (scp := _SCP.fullmatch(repository)):
        return repository, (), frozenset({scp[1].lower()})
    parts = urlsplit(repository)
    if parts.scheme == "file":
        path = Path(parts.path)
        if not sources.local_allowed:
            raise BuildFailure("RepositoryUnreachable", "repositories of this machine are not allowed as a source")
        if not _is_there(path):
            raise BuildFailure("RepositoryNotFound", f"the builder finds no repository at {repository}")
        return "file:///repository", (Mount(str(path), "/repository"),), frozenset()
    if parts.scheme not in ("https", "http", "ssh") or not parts.hostname or repository.startswith("-"):
        raise BuildFailure("RepositoryNotFound", f"{repository} is not the URL of a repository")
    return repository, (), frozenset({parts.hostname.lower()})


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
    given = order.credential
    values = [given.token, *(given.deploy_key or "").splitlines()]
    if given.token:
        values.append(_authorization(given).rpartition(" ")[2])
    return tuple(Secret(value) for value in values if value and not value.startswith("-----"))


def _authorization(credential: RepositoryCredential) -> str:
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
    fields = {
        "branch": order.branch,
        "commit": order.commit,
        "repository": order.repository or "that address",
        # Hosts do not tell strangers which repositories there are.
        "unauthorized": "is not open to that credential, or does not exist"
        if order.credential
        else "is private, or does not exist",
    }
    for pattern, reason, message in _COMPLAINTS:
        if re.search(pattern, said, re.IGNORECASE):
            return BuildFailure(reason, message.format(**fields))
    return BuildFailure("RepositoryUnreachable", f"{fields['repository']} could not be fetched")
