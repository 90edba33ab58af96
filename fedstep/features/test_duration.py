"""The expected duration of a test: the value that most of its recent runs are close to."""

from collections.abc import Sequence
from math import exp

from fedstep.history.test_table import SHORTEST, UNTIMED, TestStats, read_times
from fedstep.types import Unavailable

# All lie on a plateau: on six streams of tests, and for the width also on the times of 19 streams of builds, which
# are steadier (worst stream 1.02 of the median of 20; with a fixed width of 25 %, 1.37).
KEPT = 0.9  # weight of a run against the one after it
CLOSE = 2.0  # an expectation is close to a run that it misses by no more than so many usual misses ...
NARROWEST, WIDEST = 0.05, 0.25  # ... which is at least 5 % and at most 25 %
ROUNDS = 4  # one less is up to 1 % worse, more change less than that
NO_TIME = Unavailable("no report gave a time of this test")


def expected_seconds(times: Sequence[float]) -> float | Unavailable:
    """Return the expected seconds of the next run, to the millisecond, from past times, oldest first.

    The mode of the past under a bell curve on the relative error, recent runs weighing more: of all expectations the
    one with the most runs close by. That, not the mean, is what keeps a percentage error small (Gneiting, "Making and
    evaluating point forecasts", JASA 2011, on the forecast that belongs to a loss). A machine that is slow for once,
    a test that sometimes waits for a timeout and a time that has moved for good are all left behind by it. Found by
    mean shift from the weighted median (Comaniciu and Meer, "Mean shift", PAMI 2002). Unavailable without a time.

    >>> expected_seconds([0.2, 0.21, 5.0, 0.2])
    0.203
    """
    if not times:
        return NO_TIME
    past = [max(seconds, SHORTEST) for seconds in times]
    if min(past) == max(past):
        return max(round(past[0], 3), SHORTEST)
    weights = [KEPT**age for age in range(len(past) - 1, -1, -1)]
    center = _middle(past, weights)
    misses = [abs(center / seconds - 1.0) for seconds in past]
    width = min(max(CLOSE * _middle(misses, weights), NARROWEST), WIDEST)
    for _ in range(ROUNDS):
        center = _shifted(center, width, past, weights)
    return max(round(center, 3), SHORTEST)


def expected_test_seconds(stats: TestStats) -> float | Unavailable:
    """Return the expected time of the test in seconds; Unavailable without a time. It takes 0.1 ms."""
    return expected_seconds(read_times(stats.times))


def usual_test_seconds(stats: TestStats) -> float | Unavailable:
    """Return the decayed geometric mean of the test's times in seconds; Unavailable without one.

    It takes 1 us where `expected_test_seconds` takes 50: enough to order tests, not to divide them among machines.
    """
    return NO_TIME if stats.log_seconds == UNTIMED else max(exp(stats.log_seconds), SHORTEST)


def _middle(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return the weighted median as `quantile` does, in half the time: it is two fifths of ordering 5,000 tests."""
    target, end = sum(weights) / 2, 0.0
    lower, reached = 0.0, -1.0  # the value before, and the middle of its weight
    for value, weight in sorted(zip(values, weights, strict=True)):
        middle = end + weight / 2
        if middle >= target:
            share = (target - reached) / (middle - reached)
            return value if reached < 0 else lower + (value - lower) * share
        lower, reached, end = value, middle, end + weight
    return lower


def _shifted(center: float, width: float, past: Sequence[float], weights: Sequence[float]) -> float:
    """Return the center that minimizes the squared relative errors of the runs close to `center`, one of them."""
    total = squares = 0.0
    for seconds, weight in zip(past, weights, strict=True):
        share = center / seconds
        # A run above the center misses by less than one: its weight never vanishes, and the sums are positive.
        near = weight * exp(-0.5 * ((share - 1.0) / width) ** 2)
        total += near * share
        squares += near * share * share
    return center * total / squares
