"""A network of its own for each instance: one address, ingress from this machine, egress to outside.

The launcher prepares the hub once (`Hub`): an address that instances see as
the sender, forwarding, and an nft table named after the installation. Each
shim, still root, then calls `join` for its instance. The rules: an instance
answers but never dials this machine, other instances (of any installation) and
link-local addresses; it may dial everything else, behind the machine's address.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import secrets
import socket
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from minuet.kernel.errors import Exhausted, Unavailable
from minuet.launcher import syscalls
from minuet.launcher.netlink import Netlink

SHARED_SPACE = ipaddress.IPv4Network("100.64.0.0/10")
"""RFC 6598: the only range that neither the Internet nor private networks are meant to use."""

_POOL_PREFIX = 20
_NEXT_HOP = "169.254.1.1"
_HUB_MAC = b"\x02\x00\x00\x00\x00\x01"
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_FORWARDING_MARK = Path("/run/minuet.forwarding-was-off")
"""Left by the first installation that turns forwarding on, so that the last one to go turns it off again."""

_TABLE_PREFIX = "minuet_"
_SHARED_PORTS = range(20_000, 32_000)


@dataclass(frozen=True, slots=True)
class Hub:
    """The host side of one installation: its tag (in device and table names) and its pool."""

    tag: str
    pool: str

    @property
    def table(self) -> str:
        return f"{_TABLE_PREFIX}{self.tag}"

    @property
    def address(self) -> str:
        """What instances see as the sender of every request."""
        return str(ipaddress.IPv4Network(self.pool)[1])

    @property
    def capacity(self) -> int:
        return ipaddress.IPv4Network(self.pool).num_addresses - 3

    def device(self, index: int) -> str:
        return f"mn{self.tag}{index:x}"

    def instance_address(self, index: int) -> str:
        """The address of instance number `index`, counted from 0."""
        return str(ipaddress.IPv4Network(self.pool)[index + 2])


def rules(hub: Hub) -> str:
    """The whole nft table, as text; pure, so that it can be read in a test."""
    ours = f'"mn{hub.tag}*"'
    return f"""
table inet {hub.table} {{
  chain forward {{
    type filter hook forward priority -10; policy accept;
    oifname {ours} ct state established,related accept
    oifname {ours} drop
    iifname {ours} ip saddr != {hub.pool} drop
    iifname {ours} ip daddr {{ 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/4 }} drop
    iifname {ours} meta nfproto ipv6 drop
  }}
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname {ours} ct state established,related accept
    iifname {ours} drop
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr {hub.pool} oifname != {ours} masquerade
  }}
}}
"""


def candidates(chosen: str) -> list[str]:
    """The pools to try, in order: the operator's, or every /20 of the shared space."""
    if chosen:
        return [str(ipaddress.IPv4Network(chosen))]
    return [str(pool) for pool in SHARED_SPACE.subnets(new_prefix=_POOL_PREFIX)]


def open_hub(tag: str, pools: list[str]) -> Hub:
    """Claims the first free pool, sets forwarding and the table; raises `Exhausted` or `Unavailable`.

    The claim is the hub address on the loopback device: adding an address that
    exists fails, so two installations never share a pool.
    """
    link = Netlink()
    try:
        for pool in pools:
            hub = Hub(tag, pool)
            if _routed(hub.pool):
                continue
            with contextlib.suppress(FileExistsError):
                link.add_address(socket.if_nametoindex("lo"), hub.address)
                _prepare(link, hub)
                return hub
    finally:
        link.close()
    raise Exhausted("no address pool is free", code="NoAddressPool", hint="set address_pool to an unused network")


def reopen_hub(hub: Hub) -> None:
    """Takes up a hub an earlier launcher of this installation left, whose instances still run."""
    link = Netlink()
    with contextlib.suppress(FileExistsError):
        link.add_address(socket.if_nametoindex("lo"), hub.address)
    _prepare(link, hub)
    link.close()


def close_hub(hub: Hub) -> None:
    """Removes table and address; turns forwarding off again if nobody else of us needs it."""
    subprocess.run(["nft", "delete", "table", "inet", hub.table], check=False, capture_output=True)
    link = Netlink()
    with contextlib.suppress(OSError):
        link.delete_address(socket.if_nametoindex("lo"), hub.address)
    with contextlib.suppress(OSError):
        link.stop_refusing(*_parts(hub))
    link.close()
    listing = subprocess.run(["nft", "list", "tables"], check=False, capture_output=True, text=True).stdout
    if _TABLE_PREFIX not in listing and _FORWARDING_MARK.exists():
        _FORWARDING.write_text("0", encoding="ascii")
        _FORWARDING_MARK.unlink(missing_ok=True)


def _routed(pool: str) -> bool:
    """Whether this machine has a route into the pool already, other than a default one."""
    wanted = ipaddress.IPv4Network(pool)
    for line in Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]:
        words = line.split()
        destination = socket.inet_ntoa(struct.pack("=I", int(words[1], 16)))
        mask = socket.inet_ntoa(struct.pack("=I", int(words[7], 16)))
        route = ipaddress.IPv4Network(f"{destination}/{mask}", strict=False)
        if route.prefixlen and route.overlaps(wanted):
            return True
    return False


def _prepare(link: Netlink, hub: Hub) -> None:
    """Rules first; then addresses without an instance are refused here, and never asked for outside."""
    _load_rules(hub)
    link.refuse(*_parts(hub))


def _parts(hub: Hub) -> tuple[str, int]:
    pool = ipaddress.IPv4Network(hub.pool)
    return str(pool.network_address), pool.prefixlen


def _load_rules(hub: Hub) -> None:
    # "add, delete, add" replaces the table in one transaction whether or not it was there.
    text = f"add table inet {hub.table}\ndelete table inet {hub.table}\n{rules(hub)}"
    done = subprocess.run(["nft", "-f", "-"], input=text, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(
            f"nft refused the rules: {done.stderr.strip()[:300]}", code="NoPacketFilter", hint="install nftables"
        )
    if _FORWARDING.read_text(encoding="ascii").strip() == "0":
        _FORWARDING_MARK.touch(mode=0o600)
        _FORWARDING.write_text("1", encoding="ascii")


def free_port(taken: set[int]) -> int:
    """A port for an instance that shares this machine's network; raises `Exhausted` when there is none.

    Taken from below the range the kernel gives to outgoing connections, so that
    none of those takes it before the application listens; from a random place
    on, so that two installations seldom try the same.
    """
    first = secrets.randbelow(len(_SHARED_PORTS))
    for offset in range(len(_SHARED_PORTS)):
        port = _SHARED_PORTS[(first + offset) % len(_SHARED_PORTS)]
        if port not in taken and is_free(port):
            return port
    raise Exhausted("no port of this machine is free", code="NoCapacity", hint="scale something down")


def is_free(port: int) -> bool:
    """Whether nobody on this machine listens on a port, on whichever address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("0.0.0.0", port))  # noqa: S104 - tried only, never listened on
        except OSError:
            return False
    return True


def instance_mac(index: int) -> bytes:
    return b"\x02\x01" + struct.pack(">I", index)


def join(hub: Hub, index: int) -> None:
    """Moves the calling process (a shim that is still root) into a fresh network, connected to the hub."""
    outside = Netlink()
    lookup = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        device, address = hub.device(index), hub.instance_address(index)
        outside.delete_link(device)
        isolate()
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1", encoding="ascii")
        namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        outside.add_veth(device, _HUB_MAC, "eth0", instance_mac(index), namespace)
        os.close(namespace)
        host_side = _index_of(lookup, device)
        outside.add_neighbour(host_side, address, instance_mac(index))
        outside.add_route(host_side, address, source=hub.address)
        _configure_inside(address)
    finally:
        lookup.close()
        outside.close()


def isolate() -> None:
    """A fresh network namespace with nothing but its own loopback device.

    Without root it belongs to a user namespace of its own, in which the process is who it was.
    """
    if os.geteuid() != 0:
        _own_users()
    syscalls.unshare(syscalls.CLONE_NEWNET)
    inside = Netlink()
    inside.set_up(socket.if_nametoindex("lo"))
    inside.close()


def _own_users() -> None:
    uid, gid = os.geteuid(), os.getegid()
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        Path(f"/proc/self/{name}").write_text(text, encoding="ascii")


def _configure_inside(address: str) -> None:
    inside = Netlink()
    card = socket.if_nametoindex("eth0")
    inside.set_up(card)
    inside.add_address(card, address)
    inside.add_neighbour(card, _NEXT_HOP, _HUB_MAC)
    inside.add_route(card, None, gateway=_NEXT_HOP, source=address)
    inside.close()


def leave(hub: Hub, index: int) -> None:
    """Removes an instance's device, should it still be there; the namespace goes with its processes."""
    link = Netlink()
    try:
        link.delete_link(hub.device(index))
    finally:
        link.close()


def _index_of(lookup: socket.socket, device: str) -> int:
    answer = fcntl.ioctl(lookup, 0x8933, struct.pack("16s16x", device.encode()))
    return int(struct.unpack_from("=i", answer, 16)[0])
