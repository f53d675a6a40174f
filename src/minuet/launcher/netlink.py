"""The few rtnetlink messages that give an instance its network, without starting a program.

Used by `network.py` only. Starting `ip` three times costs about 10 ms for each
instance; these messages cost less than one.
"""

from __future__ import annotations

import os
import socket
import struct

_ACK_REQUEST = 0x1 | 0x4
_CREATE_EXCLUSIVE = 0x400 | 0x200
_REPLACE_CREATE = 0x400 | 0x100
_NEW_LINK, _DELETE_LINK, _SET_LINK, _NEW_ADDRESS, _DELETE_ADDRESS, _NEW_ROUTE = 16, 17, 19, 20, 21, 24
_DELETE_ROUTE, _NEW_NEIGHBOUR = 25, 28
_UP = 1
_MAIN_TABLE, _STATIC, _UNICAST, _UNREACHABLE, _ON_LINK = 254, 4, 1, 7, 4
_SCOPE_GLOBAL, _SCOPE_LINK = 0, 253
_PERMANENT = 0x80
_ERROR = 2


def _attribute(kind: int, value: bytes) -> bytes:
    length = len(value) + 4
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _link(index: int, flags: int = 0) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, flags, flags)


class Netlink:
    """One rtnetlink socket, bound for life to the network namespace it was opened in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.bind((0, 0))
        # Interface numbers are asked for over a socket of the same namespace.
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def add_veth(self, name: str, mac: bytes, peer: str, peer_mac: bytes, peer_namespace: int) -> None:
        """Makes a pair: `name` here and up, `peer` directly in the other namespace, where it is set up later.

        The kernel refuses to set the peer up before its other half exists (ENOTCONN).
        """
        inner = _link(0) + _text(3, peer) + _attribute(1, peer_mac)
        inner += _attribute(28, struct.pack("=i", peer_namespace))
        info = _text(1, "veth") + _attribute(2, _attribute(1, inner))
        body = _link(0, _UP) + _text(3, name) + _attribute(1, mac) + _attribute(18, info)
        self._ask(_NEW_LINK, _CREATE_EXCLUSIVE, body)

    def delete_link(self, name: str) -> bool:
        """Removes an interface; False when there is none of that name."""
        try:
            self._ask(_DELETE_LINK, 0, _link(0) + _text(3, name))
        except OSError as error:
            if error.errno == 19:  # noqa: PLR2004 - ENODEV
                return False
            raise
        return True

    def set_up(self, index: int) -> None:
        self._ask(_SET_LINK, 0, _link(index, _UP))

    def add_address(self, index: int, address: str) -> None:
        """Adds one address (/32); raises `FileExistsError` when it is there already."""
        self._ask(_NEW_ADDRESS, _CREATE_EXCLUSIVE, self._address(index, address))

    def delete_address(self, index: int, address: str) -> None:
        self._ask(_DELETE_ADDRESS, 0, self._address(index, address))

    def _address(self, index: int, address: str) -> bytes:
        raw = socket.inet_aton(address)
        return (
            struct.pack("=BBBBI", socket.AF_INET, 32, 0, _SCOPE_GLOBAL, index) + _attribute(2, raw) + _attribute(1, raw)
        )

    def add_route(
        self, index: int, destination: str | None, *, gateway: str | None = None, source: str | None = None
    ) -> None:
        """Adds a route to one address, or the default route over a gateway that is on the link."""
        scope, flags = (_SCOPE_GLOBAL, _ON_LINK) if gateway else (_SCOPE_LINK, 0)
        size = 32 if destination else 0
        body = struct.pack(
            "=BBBBBBBBI", socket.AF_INET, size, 0, 0, _MAIN_TABLE, _STATIC, scope, _UNICAST, flags
        ) + _attribute(4, struct.pack("=i", index))
        for kind, address in ((1, destination), (5, gateway), (7, source)):
            if address:
                body += _attribute(kind, socket.inet_aton(address))
        self._ask(_NEW_ROUTE, _REPLACE_CREATE, body)

    def refuse(self, network: str, prefix: int) -> None:
        """Makes a network unreachable as long as no better route leads into it."""
        body = struct.pack(
            "=BBBBBBBBI", socket.AF_INET, prefix, 0, 0, _MAIN_TABLE, _STATIC, _SCOPE_GLOBAL, _UNREACHABLE, 0
        ) + _attribute(1, socket.inet_aton(network))
        self._ask(_NEW_ROUTE, _REPLACE_CREATE, body)

    def stop_refusing(self, network: str, prefix: int) -> None:
        body = struct.pack(
            "=BBBBBBBBI", socket.AF_INET, prefix, 0, 0, _MAIN_TABLE, _STATIC, _SCOPE_GLOBAL, _UNREACHABLE, 0
        ) + _attribute(1, socket.inet_aton(network))
        self._ask(_DELETE_ROUTE, 0, body)

    def add_neighbour(self, index: int, address: str, mac: bytes) -> None:
        """Fixes who answers at an address of the link, so that nobody has to be asked."""
        body = struct.pack("=BxHiHBB", socket.AF_INET, 0, index, _PERMANENT, 0, _UNICAST)
        self._ask(_NEW_NEIGHBOUR, _REPLACE_CREATE, body + _attribute(1, socket.inet_aton(address)) + _attribute(2, mac))

    def _ask(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        header = struct.pack("=IHHII", 16 + len(body), kind, _ACK_REQUEST | flags, self._sequence, 0)
        self._socket.send(header + body)
        while True:
            answer = self._socket.recv(65536)
            length, answered, _, sequence, _ = struct.unpack_from("=IHHII", answer)
            if answered == _ERROR and sequence == self._sequence and length >= 20:  # noqa: PLR2004 - header and code
                code = struct.unpack_from("=i", answer, 16)[0]
                if code:
                    raise OSError(-code, f"rtnetlink message {kind}: {os.strerror(-code)}")
                return
