"""How a shim comes to be: what it does as root, in its first milliseconds, before it drops to its tenant.

`launcher/instances.py` forks and calls `become_shim` in the child, which never
returns. Everything that needs root or the machine's own network happens here:
the folder and its lock, what an earlier shim left running, the network
namespace, the control groups, and the opening of sealed values.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from minuet.kernel.errors import Conflict, Invalid, MinuetError
from minuet.launcher import cgroups, network, processes, sandbox, shim, syscalls, wire
from minuet.launcher.identities import Identity
from minuet.launcher.isolation import has_own_files
from minuet.launcher.logfiles import LogFolder
from minuet.launcher.requests import Sealable, StartInstance
from minuet.launcher.settings import Layout, Settings
from minuet.protocol import sealing

_LOCK_SECONDS = 5.0
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
_SEALED_SIZE = 32


@dataclass(frozen=True, slots=True)
class Cradle:
    """What the launcher gives a shim to begin with."""

    order: StartInstance
    identity: Identity
    agent: Identity
    isolation: str
    hierarchy: cgroups.Hierarchy
    hub: network.Hub | None
    index: int
    ports: Mapping[int, int]
    """The real port for each declared one, in classes without a network of its own."""

    layout: Layout
    settings: Settings

    @property
    def folder(self) -> Path:
        return self.layout.instances / self.order.id

    @property
    def address(self) -> str:
        return self.hub.instance_address(self.index) if self.hub else "127.0.0.1"


def become_shim(cradle: Cradle, report: int) -> NoReturn:
    """The whole life of the forked child; tells over `report` whether the shim stands, then runs it."""
    code = 1
    folder_fd: int | None = None
    try:
        report = _leave_the_launcher(report)
        folder_fd = _open_folder(cradle)
        instance = _prepare(cradle, folder_fd)
        os.write(report, wire.encode({"pid": os.getpid()}))
        os.close(report)
        instance.run()
        code = 0
    except MinuetError as error:
        _tell(report, {"code": error.code, "message": error.message, "hint": error.hint})
    except OSError as error:
        _tell(report, {"code": "StartFailed", "message": f"the instance could not be prepared: {error}"})
        _leave_a_note(folder_fd)
    except BaseException as error:  # noqa: BLE001 - a forked child must end here, whatever happened
        _tell(report, {"code": "StartFailed", "message": f"{type(error).__name__}: {error}"})
        _leave_a_note(folder_fd)
    os._exit(code)


def _leave_a_note(folder_fd: int | None) -> None:
    """A bug of the shim itself is written beside its state, where `doctor` and people find it."""
    with contextlib.suppress(OSError):
        fd = os.open("failure", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o640, dir_fd=folder_fd)
        os.write(fd, traceback.format_exc().encode())
        os.close(fd)


def _tell(report: int, error: wire.Message) -> None:
    with contextlib.suppress(OSError):
        os.write(report, wire.encode({"error": error}))


def _leave_the_launcher(report: int) -> int:
    """A session and descriptors of its own: nothing that happens to the launcher reaches the shim."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    os.dup2(report, 3, inheritable=False)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    os.umask(0o022)
    return 3


def _prepare(cradle: Cradle, folder_fd: int) -> shim.Shim:
    order, identity = cradle.order, cradle.identity
    _end_predecessor(cradle)
    group = cradle.hierarchy.make(order.id, cgroups.Limits(order.cpu, order.memory, order.processes), identity.uid)
    group.shelter()
    listener = _open_socket(cradle)
    log = _open_log(cradle)
    plan = _plan(cradle)
    if cradle.hub:
        network.join(cradle.hub, cradle.index)
    syscalls.adopt_orphans()
    os.umask(0o007)
    identity.assume()
    # After the change of uid, which resets this to what the machine's settings say.
    syscalls.not_traceable()
    mark = processes.mark_of(os.getpid())
    state = shim.State(
        id=order.id, key=order.key, template=order.template, generation=order.generation,
        address=cradle.address, isolation=cradle.isolation, shim=asdict(mark) if mark else {},
    )  # fmt: skip
    home = shim.Home(
        folder_fd=folder_fd, listener=listener, log=log, group=group, plan=plan, rlimits=_rlimits(cradle),
        friends=frozenset({0, cradle.agent.uid}), stop_grace=order.stop_grace, own_network=cradle.hub is not None,
    )  # fmt: skip
    born = shim.Shim(state, home)
    born.save()
    return born


def _open_folder(cradle: Cradle) -> int:
    """Makes the instance's folder and takes its lock, which a dying predecessor may hold a moment longer."""
    folder = cradle.folder
    folder.mkdir(mode=0o750, exist_ok=True)
    os.chown(folder, cradle.identity.uid, cradle.agent.gid)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=fd)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise Conflict(f"instance {cradle.order.id} runs already", code="AlreadyRunning") from error
            time.sleep(0.01)


def _end_predecessor(cradle: Cradle) -> None:
    """What an earlier shim of this instance left dies before anything new starts: one instance runs, never two."""
    left = cradle.hierarchy.find(cradle.order.id)
    left.kill()
    deadline = time.monotonic() + _LOCK_SECONDS
    while (pids := left.processes()) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _open_socket(cradle: Cradle) -> socket.socket:
    path = cradle.folder / shim.SOCKET_FILE
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    os.chown(path, cradle.identity.uid, cradle.agent.gid)
    path.chmod(0o660)
    listener.listen(8)
    return listener


def _open_log(cradle: Cradle) -> LogFolder:
    folder = cradle.layout.logs / cradle.order.key.replace("/", "_")
    folder.mkdir(mode=0o750, exist_ok=True)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    os.fchown(fd, cradle.identity.uid, cradle.agent.gid)
    os.fchmod(fd, 0o2770 if os.geteuid() == 0 else 0o750)
    settings = cradle.settings
    return LogFolder(
        fd, cradle.order.id, segment=settings.workload_segment_bytes, total=settings.workload_log_bytes,
        per_second=settings.log_lines_per_second,
    )  # fmt: skip


def _plan(cradle: Cradle) -> sandbox.Plan:
    order = cradle.order
    if order.files and not has_own_files(cradle.isolation):
        what = f"the isolation class {cradle.isolation} cannot show {order.files[0].name} to an application"
        raise Invalid(what, hint="install bubblewrap and allow user namespaces")
    opened = _unsealed(cradle)
    mounts = tuple(sandbox.Mount(str(cradle.layout.layers / item.layer), item.target) for item in order.layers)
    environment = sandbox.base_environment(_search_path(mounts))
    if order.ports:
        environment["PORT"] = str(order.ports[0])
    if not has_own_files(cradle.isolation):
        environment |= dict.fromkeys(("HOME", "TMPDIR"), str(_own_folder(cradle)))
    environment |= {item.name: opened[item.name] for item in order.environment} | _real_ports(cradle)
    files = {item.name: opened[item.name].encode() for item in order.files}
    targets = [mount.target for mount in mounts]
    cwd = "/app" if "/app" in targets else targets[0] if targets else "/"
    # Half of the memory at most: what lies in /tmp counts as memory of the application.
    tmp_bytes = min(order.disk, max(order.memory // 2, 1024 * 1024))
    return sandbox.Plan(sandbox.shell(order.command), environment, cwd, mounts, files, tmp_bytes)


def _real_ports(cradle: Cradle) -> dict[str, str]:
    """Where the declared ports are others: `PORT` is the first one, `PORT_<declared>` is each of them."""
    named = {f"PORT_{declared}": str(real) for declared, real in cradle.ports.items()}
    return named | ({"PORT": str(cradle.ports[cradle.order.ports[0]])} if cradle.ports else {})


def _search_path(mounts: tuple[sandbox.Mount, ...]) -> str:
    own = [f"{mount.target}/bin" for mount in mounts if (Path(mount.source) / "bin").is_dir()]
    return ":".join([*own, _SYSTEM_PATH])


def _own_folder(cradle: Cradle) -> Path:
    """Stands in for the private /tmp in the classes that have none."""
    folder = cradle.folder / "tmp"
    folder.mkdir(mode=0o700, exist_ok=True)
    os.chown(folder, cradle.identity.uid, cradle.identity.gid)
    return folder


def _unsealed(cradle: Cradle) -> dict[str, str]:
    """Every value as text. The plane's private key is in this process for the length of this function only."""
    order = cradle.order
    values = (*order.environment, *order.files)
    plain = {item.name: item.value for item in values if item.value is not None}
    sealed = [item for item in values if item.ciphertext is not None]
    if not sealed:
        return plain
    key = bytearray(_SEALED_SIZE)
    with cradle.layout.sealing_key.open("rb", buffering=0) as file:
        file.readinto(key)
    try:
        return plain | {item.name: _open(bytes(key), order.key, item) for item in sealed}
    finally:
        key[:] = bytes(_SEALED_SIZE)


def _open(key: bytes, workload: str, item: Sealable) -> str:
    return sealing.unseal(key, item.ciphertext or "", f"{workload}/{item.name}").reveal()


def _rlimits(cradle: Cradle) -> dict[int, int]:
    limits = {resource.RLIMIT_CORE: 0}
    if not has_own_files(cradle.isolation):
        limits[resource.RLIMIT_FSIZE] = min(cradle.order.disk, sys.maxsize)
    return limits
