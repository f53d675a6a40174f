"""One changed line after the other, pushed with Git, until it is served: for us and for peers alike."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from tests.given.load import Failure, Load
from tests.given.platform import eventually
from tests.given.repository import Repository, python_app


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds from push to served for each round, and what the load saw meanwhile (seconds of each request)."""

    seconds: list[float]
    failures: list[Failure]
    latencies: list[float]


def redeploy(
    repository: Repository,
    where: tuple[str, str],
    load: Load,
    rounds: int,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Pushes `rounds` new versions, each when the one before is served; the load goes on all the while.

    `where` are the remote and what is pushed there.
    """
    seconds = []
    with load:
        for number in range(1, rounds + 1):
            text = f"v{number}"
            repository.commit(python_app(text))
            began = time.monotonic()
            repository.git("push", "-q", *where, environment=environment)
            eventually(lambda: load.answers and load.answers[-1][1] == text, 120, f"{text} is served")  # noqa: B023 - looked at before the next round
            seconds.append(next(at for at, body in load.answers if body == text) - began)
    return Outcome(seconds, load.failures, load.seconds)
