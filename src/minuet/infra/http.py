"""Outgoing HTTP: certificates pinned by fingerprint, and a guard against requests to inside.

The agent, the builder and the server reach one another through `client`; with
`guard` it is for addresses that users typed, and refuses everything that is not
a public one. Names are resolved here and the resolved address is connected to,
so that a name cannot change its mind between check and use.
"""

# ruff: noqa: ASYNC109 - the parameters are those of httpcore's interface
from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import httpcore2
import httpx2
from httpcore2._backends.auto import AutoBackend

from minuet.kernel.errors import Forbidden

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0

Guard = Callable[[str], None]
"""Called with each resolved address before it is connected to; raises `Forbidden`."""


def client(
    *, fingerprint: str | None = None, guard: Guard | None = None, read_seconds: float | None = READ_SECONDS
) -> httpx2.AsyncClient:
    """Returns a client; it follows no redirects and knows no proxies of the environment.

    With a `fingerprint` (hexadecimal SHA-256 of the certificate's DER form) exactly
    that certificate is accepted, whoever signed it; without, the usual rules hold.
    """
    timeout = httpx2.Timeout(read_seconds, connect=CONNECT_SECONDS)
    context = _known_context(fingerprint)
    transport = httpx2.AsyncHTTPTransport(verify=context, trust_env=False)
    transport._pool = httpcore2.AsyncConnectionPool(  # noqa: SLF001 - the transport takes no backend of its own
        ssl_context=context,
        max_connections=100,
        max_keepalive_connections=20,
        keepalive_expiry=30.0,
        network_backend=_Backend(fingerprint, guard),
    )
    return httpx2.AsyncClient(transport=transport, timeout=timeout, trust_env=False, follow_redirects=False)


def tls_context(fingerprint: str | None) -> ssl.SSLContext:
    """The rules of TLS: 1.2 at least; a pinned certificate replaces the usual authorities."""
    if fingerprint is None:
        context = ssl.create_default_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@functools.cache
def _known_context(fingerprint: str | None) -> ssl.SSLContext:
    """The same, made once: reading the machine's authorities costs 20 ms, more than most requests."""
    return tls_context(fingerprint)


def fingerprint_of(certificate: bytes) -> str:
    """Returns the fingerprint of a certificate in DER form."""
    return hashlib.sha256(certificate).hexdigest()


def check_fingerprint(connection: ssl.SSLObject | ssl.SSLSocket | None, fingerprint: str) -> None:
    """Raises `Forbidden` unless the peer showed the pinned certificate."""
    certificate = connection.getpeercert(binary_form=True) if connection is not None else None
    expected = fingerprint.lower().replace(":", "")
    if certificate is None or not hmac.compare_digest(fingerprint_of(certificate), expected):
        raise Forbidden("the server showed another certificate than the pinned one", code="WrongCertificate")


def public_only(allowed: Iterable[str] = ()) -> Guard:
    """Returns a guard for addresses that users typed: public ones, and the networks in `allowed`."""
    networks = [ipaddress.ip_network(network) for network in allowed]

    def check(address: str) -> None:
        target = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(target, "ipv4_mapped", None)
        target = mapped or target
        if any(target in network for network in networks):
            return
        if not target.is_global or target.is_multicast:
            raise Forbidden("the address is not a public one", code="AddressForbidden", hint="use a public host")

    return check


class _Backend(httpcore2.AsyncNetworkBackend):
    """Connects to checked addresses and checks the certificate before the first byte is sent."""

    def __init__(self, fingerprint: str | None, guard: Guard | None) -> None:
        self._inner = AutoBackend()
        self._fingerprint = fingerprint
        self._guard = guard

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore2.AsyncNetworkStream:
        target = host if self._guard is None else await self._checked(host, port, self._guard)
        stream = await self._inner.connect_tcp(target, port, timeout, local_address, socket_options)
        return stream if self._fingerprint is None else _Pinned(stream, self._fingerprint)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Any = None
    ) -> httpcore2.AsyncNetworkStream:
        return await self._inner.connect_unix_socket(path, timeout, socket_options)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _checked(self, host: str, port: int, guard: Guard) -> str:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise httpcore2.ConnectError(str(error)) from error
        addresses = [str(item[4][0]) for item in found]
        for address in addresses:
            guard(address)
        return addresses[0]


class _Pinned(httpcore2.AsyncNetworkStream):
    """A stream that refuses another certificate right after the handshake."""

    def __init__(self, inner: httpcore2.AsyncNetworkStream, fingerprint: str) -> None:
        self._inner = inner
        self._fingerprint = fingerprint

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        stream = await self._inner.start_tls(ssl_context, server_hostname, timeout)
        try:
            check_fingerprint(stream.get_extra_info("ssl_object"), self._fingerprint)
        except Forbidden:
            await stream.aclose()
            raise
        return stream

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
