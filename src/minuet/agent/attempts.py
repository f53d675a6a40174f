"""What was tried for each workload and did not work: when it may be tried again, and what is told meanwhile.

Kept by the reconciler. Lost with the process, which only means another try.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from minuet.agent.model import StartTrouble
from minuet.kernel.reasons import REASONS
from minuet.kernel.retry import Backoff, GiveUp, Retry
from minuet.protocol.desired import Workload

_BACKOFF = Backoff(base=0.2, cap=30.0)


class Attempts:
    """Times are monotonic seconds."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._troubles: dict[str, dict[str, StartTrouble]] = {}

    def is_due(self, key: str, now: float) -> bool:
        return self._not_before.get(key, 0.0) <= now

    def pauses(self, now: float) -> Iterable[float]:
        """Seconds until each workload that waits may be tried again."""
        return [due - now for due in self._not_before.values() if due > now]

    def troubles(self, key: str) -> Mapping[str, StartTrouble]:
        """Why instances cannot be started, by version."""
        return dict(self._troubles.get(key, {}))

    def begin(self, key: str) -> None:
        """A new generation is a new chance."""
        self._not_before.pop(key, None)
        self._troubles.pop(key, None)

    def back_off(self, key: str, now: float, at_least: float = 0.0) -> None:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        self._not_before[key] = now + max(at_least, _BACKOFF.delay(count))

    def start_failed(self, workload: Workload, trouble: Retry | GiveUp, now: float) -> None:
        """Notes it, and comes back when the time to start is over at the latest, so that the plan can judge."""
        key = workload.key
        self.back_off(key, now, trouble.after if isinstance(trouble, Retry) else 0.0)
        known = self._troubles.setdefault(key, {}).get(workload.template)
        since = known.since if known else now
        self._troubles[key][workload.template] = StartTrouble(since, now, reason_of(trouble), str(trouble))
        if now < since + workload.start_timeout:
            self._not_before[key] = min(self._not_before[key], since + workload.start_timeout)

    def worked(self, key: str) -> None:
        """Something was done for it: trouble that comes later is new."""
        self._failures.pop(key, None)

    def started(self, key: str, templates: Iterable[str]) -> None:
        """These versions have all their instances."""
        troubles = self._troubles.get(key, {})
        for template in templates:
            troubles.pop(template, None)

    def forget_all_but(self, keys: set[str]) -> None:
        for key in (self._failures.keys() | self._not_before.keys() | self._troubles.keys()) - keys:
            self._failures.pop(key, None)
            self.begin(key)


def reason_of(trouble: Retry | GiveUp) -> str:
    """The catalogue's word for why an instance was not started."""
    word = trouble.reason if isinstance(trouble, GiveUp) else trouble.code or ""
    return word if word in REASONS else "StartFailed"
