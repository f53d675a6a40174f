"""A steady load on a service through the gateway, which never retries and lists every failure."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that was not answered with 200: when it was sent and given up (monotonic seconds), and why."""

    began: float
    ended: float
    why: str

    def was_in_flight_at(self, moment: float, slack: float = 0.05) -> bool:
        """Whether it had been sent at that moment and had no answer; `slack` allows for two clocks' reading."""
        return self.began <= moment + slack and self.ended >= moment - slack


@dataclass
class Load:
    """An open loop of a fixed rate (requests a second) over keep-alive connections.

    Requests are due at fixed moments whatever the answers do, and `seconds` counts
    from the moment a request was due: a stall is seen by every request it delays.
    """

    port: int
    host: str
    path: str = "/"
    connections: int = 8
    rate: float = 100.0
    seconds: list[float] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    answers: list[tuple[float, str]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._ask, args=(index,)) for index in range(self.connections)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def _ask(self, index: int) -> None:
        period = self.connections / self.rate
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        due = time.monotonic() + period * index / self.connections
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            began = time.monotonic()
            try:
                connection.request("GET", self.path, headers={"Host": self.host})
                answer = connection.getresponse()
                body = answer.read().decode(errors="replace")
            except (OSError, http.client.HTTPException) as error:
                self._fail(began, f"{type(error).__name__}: {error}")
                connection.close()
            else:
                self.seconds.append(time.monotonic() - due)
                self.answers.append((time.monotonic(), body))
                if answer.status != http.client.OK:
                    self._fail(began, f"status {answer.status}: {body[:120]}")
            due += period
        connection.close()

    def _fail(self, began: float, why: str) -> None:
        self.failures.append(Failure(began, time.monotonic(), why))
