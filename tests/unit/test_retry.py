"""Back-off in numbers: how long a start waits, and what ends a row of failures."""

from minuet.kernel.retry import Backoff, next_attempt

STEADY = 5.0


def test_failures_in_a_row_wait_longer_and_longer() -> None:
    attempt = 0
    for lived in (0.1, 4.9, 0.0):
        attempt = next_attempt(attempt, lived, STEADY)
    assert attempt == 3
    assert Backoff().delay(attempt) >= 0.2


def test_one_that_lived_is_started_again_at_once_however_often_it_ended_before() -> None:
    attempt = 0
    for _ in range(10):
        attempt = next_attempt(attempt, STEADY, STEADY)
    assert Backoff().delay(attempt) <= 0.1
