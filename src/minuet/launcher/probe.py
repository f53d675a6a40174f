"""Which class of isolation really works here, found out by running it, and what is missing for the best.

The launcher asks at its start and chooses; `minuet doctor` shows the answer.
Nothing is concluded from versions or files alone.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from minuet import system
from minuet.kernel.errors import Unavailable
from minuet.launcher import cgroups, isolation, landlock, network, sandbox, seccomp

_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The class that works, and a sentence for each thing that is missing for `sandbox`.

    `builds` is the class that builds and hosted Git run in, which always have a
    network of their own; None where no class can give them a tree of their own.
    """

    isolation: str
    missing: tuple[str, ...]
    cgroups: str
    builds: str | None = None


def probe(wanted: str, hierarchy: cgroups.Hierarchy) -> Finding:
    """Raises `Unavailable` when the class that was asked for by name does not work."""
    if not system.IS_LINUX:
        return _without_linux(wanted)
    files, networks = _bubblewrap_failure(), _network_failure()
    missing = _missing(hierarchy, files, networks)
    working = _working(missing, files)
    chosen = next(iter(working), isolation.NONE) if wanted == "auto" else wanted
    if wanted == "auto" and not working:
        raise Unavailable(
            "no class of isolation works here: " + "; ".join(missing), code="NoIsolation",
            hint='set isolation = "none" to run trusted code only',
        )  # fmt: skip
    if chosen not in (*working, isolation.NONE):
        raise Unavailable(f"the class {chosen} does not work here: " + "; ".join(missing), code="NoIsolation")
    if not isolation.has_own_network(chosen):
        missing.append(_SHARED)
    builds = None if files or networks else chosen if isolation.has_own_files(chosen) else isolation.HOST_NETWORK
    if builds is None:
        missing.append("without bubblewrap and network namespaces nothing can be built and no Git repository hosted")
    return Finding(chosen, tuple(missing), hierarchy.name, builds)


_NO_CGROUPS = "no control groups may be written: memory, CPU and processes are not limited"
_SHARED = "applications share this machine's network: each must listen on $PORT and can reach what listens here"


def _without_linux(wanted: str) -> Finding:
    if wanted not in ("auto", isolation.NONE):
        raise Unavailable(f"{platform.system()} has no class {wanted}", code="NoIsolation")
    lost = f"{platform.system()} has no namespaces: only trusted code may run, and nothing can be built here"
    return Finding(isolation.NONE, (lost, _SHARED), "none")


def _working(missing: list[str], files: str | None) -> list[str]:
    """The classes that work, strongest first."""
    found = [] if set(missing) - {_NO_CGROUPS} else [isolation.SANDBOX]
    if files is None:
        found.append(isolation.HOST_NETWORK)
    if landlock.version():
        found.append(isolation.LANDLOCK)
    return found


def _missing(hierarchy: cgroups.Hierarchy, files: str | None, networks: str | None) -> list[str]:
    """A sentence for each thing that is missing; the two failures are those of bubblewrap and of namespaces."""
    missing = []
    root = os.geteuid() == 0
    if not root:
        missing.append("not started as root: the platform, every build and every application have one uid")
    if files:
        missing.append(files)
    if root and not shutil.which("nft"):
        missing.append("nft is not installed (package nftables)")
    if networks:
        missing.append(f"no network namespace can be made: {networks}")
    if not seccomp.supported():
        missing.append(f"no filter of system calls is known for {platform.machine()}")
    if hierarchy.name == "none":
        missing.append(_NO_CGROUPS)
    return missing


def _bubblewrap_failure() -> str | None:
    """Runs the real thing, with an unprivileged uid where there is a choice."""
    if not Path(sandbox.BWRAP).exists():
        return f"{sandbox.BWRAP} is not installed (package bubblewrap)"
    plan = sandbox.Plan(("/bin/true",), {"PATH": "/usr/bin"}, "/", ())
    reader, writer = os.pipe()
    words = sandbox.options(plan, {}, None, writer)
    user = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(
        [sandbox.BWRAP, *words, "--", "/bin/true"], env={}, pass_fds=[writer], capture_output=True, check=False,
        timeout=_SECONDS, text=True, **user,  # type: ignore[call-overload]
    )  # fmt: skip
    os.close(reader)
    os.close(writer)
    if done.returncode == 0:
        return None
    return f"bubblewrap does not work: {str(done.stderr.strip())[:200] or f'it ended with {done.returncode}'}"


def _network_failure() -> str | None:
    """Tries in a child, because a namespace once left cannot be entered again by name."""
    pid = os.fork()
    if pid == 0:
        try:
            network.isolate()
        except OSError as error:
            os._exit(error.errno or 1)
        except BaseException:  # noqa: BLE001 - a forked child must end here, whatever happened
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return os.strerror(code) if code else None
