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
from minuet.launcher import cgroups, landlock, sandbox, seccomp, syscalls

_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The class that works, and a sentence for each thing that is missing for `sandbox`."""

    isolation: str
    missing: tuple[str, ...]
    cgroups: str


def probe(wanted: str, hierarchy: cgroups.Hierarchy) -> Finding:
    """Raises `Unavailable` when the class that was asked for by name does not work."""
    missing = tuple(_missing(hierarchy))
    works = not missing or (len(missing) == 1 and hierarchy.name == "none" and missing[0] == _NO_CGROUPS)
    best = "sandbox" if works else "landlock" if landlock.version() else "none"
    chosen = best if wanted == "auto" else wanted
    if chosen == "none" and wanted != "none" and system.IS_LINUX:
        raise Unavailable(
            "no class of isolation works here: " + "; ".join(missing), code="NoIsolation",
            hint='set isolation = "none" to run trusted code only',
        )  # fmt: skip
    if wanted == "sandbox" and best != "sandbox":
        raise Unavailable("the sandbox does not work here: " + "; ".join(missing), code="NoIsolation")
    return Finding(chosen, missing, hierarchy.name)


_NO_CGROUPS = "no control groups may be written: memory, CPU and processes are not limited"


def _missing(hierarchy: cgroups.Hierarchy) -> list[str]:
    missing = []
    if not system.IS_LINUX:
        return [f"{platform.system()} has no namespaces: only trusted code may run"]
    if os.geteuid() != 0:
        missing.append("not started as root: no uid of its own for each tenant")
    if not Path(sandbox.BWRAP).exists():
        missing.append(f"{sandbox.BWRAP} is not installed (package bubblewrap)")
    elif failure := _bubblewrap_failure():
        missing.append(f"bubblewrap does not work: {failure}")
    if not shutil.which("nft"):
        missing.append("nft is not installed (package nftables)")
    if os.geteuid() == 0 and (failure := _network_failure()):
        missing.append(f"no network namespace can be made: {failure}")
    if not seccomp.supported():
        missing.append(f"no filter of system calls is known for {platform.machine()}")
    if hierarchy.name == "none":
        missing.append(_NO_CGROUPS)
    return missing


def _bubblewrap_failure() -> str | None:
    """Runs the real thing, with an unprivileged uid where there is a choice."""
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
    return None if done.returncode == 0 else str(done.stderr.strip())[:200] or f"it ended with {done.returncode}"


def _network_failure() -> str | None:
    """Tries in a child, because a namespace once left cannot be entered again by name."""
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET)
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return os.strerror(code) if code else None
