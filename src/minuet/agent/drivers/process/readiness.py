"""Asks an instance from outside whether it is ready, at its own address.

Called by `follow.py`. Cheap by design: while an instance starts it is dialled
every few milliseconds, so that it is seen within 20 ms of listening.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from minuet.agent.drivers.port import Location
from minuet.kernel.health import ProbeKind
from minuet.protocol.desired import Probe, Workload

_DIAL_SECONDS = 1.0
_FIRST_ANSWER_SECONDS = 10.0
_MAX_STATUS_LINE = 4096
_GOOD = range(200, 400)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What has to answer: ports that accept, ports that speak HTTP, and a declared probe."""

    ports: tuple[int, ...]
    http: tuple[int, ...] = ()
    probe: Probe | None = None

    @property
    def asked(self) -> tuple[int, ...]:
        """Every port that is dialled."""
        return tuple(dict.fromkeys((*self.ports, *((self.probe.port,) if self.probe else self.http))))

    @property
    def of_check_alone(self) -> Expectation:
        """What is asked of an instance that runs already: the declared check and nothing else."""
        return Expectation((), (), self.probe)


def expected_of(workload: Workload) -> Expectation:
    """Each route's port, or the first port; a workload without ports is ready when it runs."""
    routed = tuple(dict.fromkeys(route.port for route in workload.routes))
    http = tuple(dict.fromkeys(route.port for route in workload.routes if route.protocol != "grpc"))
    return Expectation(routed or workload.ports[:1], http, workload.health)


@dataclass(frozen=True, slots=True)
class Answer:
    """What asking brought. `heard` is what the application said when it answered, but not well."""

    ready: bool
    port: int | None = None
    heard: str | None = None


async def ask(location: Location, expectation: Expectation) -> Answer:
    """One round over everything that has to answer; the first failure ends it. Ports are named as declared."""
    for port in expectation.ports:
        if not await accepts(location.address, location.port(port)):
            return Answer(False, port)
    probe = expectation.probe
    if probe is not None:
        return await _check(location, probe)
    for port in expectation.http:
        status = await http_status(location.address, location.port(port), "/", _FIRST_ANSWER_SECONDS)
        if isinstance(status, str):
            return Answer(False, port, status)
    return Answer(True)


async def _check(location: Location, probe: Probe) -> Answer:
    """Asks the declared check once."""
    address, port = location.address, location.port(probe.port)
    if probe.kind is ProbeKind.TCP:
        return Answer(await accepts(address, port, probe.timeout), probe.port)
    if not await accepts(address, port):
        return Answer(False, probe.port)
    status = await http_status(address, port, probe.path, probe.timeout)
    if isinstance(status, int) and status in _GOOD:
        return Answer(True, probe.port)
    said = status if isinstance(status, str) else f"status {status} for {probe.path}"
    return Answer(False, probe.port, said)


async def accepts(address: str, port: int, seconds: float = _DIAL_SECONDS) -> bool:
    """Whether something accepts a TCP connection there."""
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    await _close(writer)
    return True


async def http_status(address: str, port: int, path: str, seconds: float) -> int | str:
    """The status of a GET, or a sentence about why there is none."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(address, port, limit=_MAX_STATUS_LINE)
            try:
                writer.write(
                    f"GET {path} HTTP/1.1\r\nHost: {address}:{port}\r\nUser-Agent: minuet-probe\r\n"
                    "Accept: */*\r\nConnection: close\r\n\r\n".encode()
                )
                line = await reader.readline()
            finally:
                await _close(writer)
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    except (OSError, ValueError) as error:
        return f"the connection broke: {error}"
    words = line.split()
    if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit():
        return int(words[1])
    return "the connection was closed without an answer" if not line else "the answer is not HTTP"


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
