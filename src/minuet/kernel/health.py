"""Health checks as people declare them: what an instance is asked, how often, and the limits of each number.

The command line, manifests, the API and the renderer take these words from
here, so that a limit stands in one place. All times are whole seconds.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from minuet.kernel.errors import invalid_field

MAX_PATH = 500

_PATH = re.compile(r"/[!-\"$-~]*")
"""What may stand in a request line: visible ASCII; a fragment is never sent."""


class ProbeKind(enum.StrEnum):
    """How an instance is asked: a GET that answers with 200 to 399, or a connection that is accepted."""

    HTTP = "http"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class Limit:
    """What a number may be at least and at most, what it is when nobody says, and what it means."""

    least: int
    most: int
    default: int
    meaning: str


FAILURE_THRESHOLD = Limit(1, 100, 3, "Failures in a row that take an instance out of routing.")
SUCCESS_THRESHOLD = Limit(1, 10, 1, "Successes in a row that let an instance in.")
INITIAL_DELAY = Limit(0, 600, 0, "Seconds from an application's start to the first check.")
PERIOD = Limit(1, 300, 30, "Seconds from one check to the next.")
TIMEOUT = Limit(1, 60, 10, "Seconds after which a check without an answer has failed.")


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How an instance shows that it can take requests.

    Without `port`, the first endpoint that can be asked in this way is meant.
    `failure_threshold` failures in a row take an instance out of routing,
    `success_threshold` successes in a row let it in. `path` is of HTTP checks only.
    """

    kind: ProbeKind = ProbeKind.HTTP
    port: int | None = None
    path: str = "/"
    failure_threshold: int = FAILURE_THRESHOLD.default
    success_threshold: int = SUCCESS_THRESHOLD.default
    initial_delay: int = INITIAL_DELAY.default
    period: int = PERIOD.default
    timeout: int = TIMEOUT.default


def check_path(kind: ProbeKind, path: str | None) -> str:
    """Returns the path that is asked for, `/` if none was given; raises `Invalid` naming `health.path`."""
    where = "health.path"
    if path is None:
        return "/"
    if kind is not ProbeKind.HTTP:
        raise invalid_field(where, "is only for checks of the kind http", given=path, hint="leave the path out")
    if len(path) > MAX_PATH:
        raise invalid_field(where, f"is {len(path)} characters long, at most {MAX_PATH} are allowed")
    if not _PATH.fullmatch(path):
        raise invalid_field(
            where, "must start with / and hold only visible ASCII, without #", given=path, hint="for example /healthz"
        )
    return path
