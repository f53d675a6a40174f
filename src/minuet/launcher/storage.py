"""The folders below the data directory and who owns them.

Called once at the launcher's start. Two rules keep a broken or captured role
from leading root astray: every folder in which the launcher makes things
belongs to root, and the folders roles share with it are sticky, so that no
role can put something else in the place of root's own entries.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from pathlib import Path

from minuet.launcher.identities import ROLES, Identities, Identity
from minuet.launcher.settings import Layout, write_whole
from minuet.protocol import sealing

_STICKY = 0o1771


def prepare(layout: Layout, identities: Identities) -> None:
    """Makes what is missing and sets owners and modes; harmless to repeat."""
    own = os.getuid()
    agent, gateway = identities.of_role("agent"), identities.of_role("gateway")
    builder, unpack = identities.of_role("builder"), identities.of_role("unpack")
    layout.data.chmod(layout.data.stat().st_mode & 0o7777 | 0o711)
    for folder in (layout.private, layout.sockets):
        _folder(folder, own, own, 0o711)
    _folder(layout.specs, own, own, 0o700)
    for role in ROLES:
        identity = identities.of_role(role)
        shared = role == "builder"
        _folder(layout.data / role, own if shared else identity.uid, identity.gid, _STICKY if shared else 0o750)
    os.chown(layout.data / "gateway", gateway.uid, gateway.gid)
    _folder(layout.plane, own, agent.gid, _STICKY)
    _folder(layout.plane / "gateway", agent.uid, gateway.gid, 0o2770)
    _folder(layout.instances, own, agent.gid, 0o750)
    _folder(layout.logs, own, agent.gid, 0o750)
    _folder(layout.layers.parent, own, agent.gid, 0o711)
    _folder(layout.layers, own, unpack.gid, 0o750 if own else 0o710)
    _folder(layout.workspaces, own, builder.gid, 0o711)


def _folder(path: Path, uid: int, gid: int, mode: int) -> None:
    path.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        os.chown(path, uid, gid, follow_symlinks=False)
        path.chmod(mode)
    else:
        path.chmod(mode & 0o777 | 0o700)


def hand_over(folder: Path, identity: Identity) -> None:
    """Lets a role read what root has put into its folder: settings, credentials.

    Each file is opened first and judged by its descriptor, because the role may
    own the folder: nothing that is linked from elsewhere changes its group.
    """
    if os.geteuid() != 0:
        return
    for entry in os.scandir(folder):
        if not entry.is_file(follow_symlinks=False):
            continue
        with contextlib.suppress(OSError):
            fd = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                found = os.fstat(fd)
                if stat.S_ISREG(found.st_mode) and found.st_uid == 0 and found.st_nlink == 1:
                    os.fchown(fd, 0, identity.gid)
                    os.fchmod(fd, 0o640)
            finally:
                os.close(fd)


def sealing_key(layout: Layout) -> str:
    """Makes the plane's key at the first start; returns the public half, which anybody may read."""
    if not layout.sealing_key.exists():
        write_whole(layout.sealing_key, sealing.new_sealing_key())
    public = sealing.sealing_public_key(layout.sealing_key.read_bytes())
    write_whole(layout.public_key, public.encode(), mode=0o644)
    return public


def installation(layout: Layout) -> dict[str, str]:
    """What names this installation in devices, tables and control groups; made at the first start."""
    if layout.installation.exists():
        record: dict[str, str] = json.loads(layout.installation.read_bytes())
        return record
    return {"tag": secrets.token_hex(2)}
