"""A steady load on a service through the gateway, which never retries and lists every failure."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Load:
    """Keep-alive connections that each ask at a fixed rate, independent of how fast answers come."""

    port: int
    host: str
    path: str = "/"
    connections: int = 8
    rate: float = 100.0
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
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
            due += period
            started = time.monotonic()
            try:
                connection.request("GET", self.path, headers={"Host": self.host})
                answer = connection.getresponse()
                body = answer.read().decode(errors="replace")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{time.strftime('%X')} {type(error).__name__}: {error}")
                connection.close()
                continue
            self.seconds.append(time.monotonic() - started)
            self.answers.append((time.monotonic(), body))
            if answer.status != http.client.OK:
                self.failures.append(f"{time.strftime('%X')} status {answer.status}: {body[:120]}")
