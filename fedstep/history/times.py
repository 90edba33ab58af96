"""The recent times of a test as a short text, two characters a time: a history holds tens of thousands of tests."""

from functools import cache
from math import exp, log

__all__ = ["SHORTEST", "WINDOW", "read_times", "with_time"]

WINDOW = 20  # times kept; an older one weighs less than a tenth of the newest
SHORTEST = 0.001  # seconds; reports round to milliseconds, so shorter times count as one
STEPS = 400  # of the logarithm, each a quarter of a percent: from 1 ms to eleven days
# What JSON writes as it is.
_LETTERS = "".join(chr(code) for code in range(ord("#"), ord("~") + 1) if chr(code) != "\\")
_NUMBER = {letter: number for number, letter in enumerate(_LETTERS)}
_MOST_STEPS = len(_LETTERS) ** 2 - 1
_LONGEST = SHORTEST * exp(_MOST_STEPS / STEPS)


def with_time(times: str, seconds: float) -> str:
    """The text after one more time, in seconds, which is not NaN; the oldest of more than WINDOW is forgotten."""
    steps = round(log(min(max(seconds, SHORTEST), _LONGEST) / SHORTEST) * STEPS)
    high, low = divmod(steps, len(_LETTERS))
    return (times + _LETTERS[high] + _LETTERS[low])[-2 * WINDOW :]


def read_times(times: str) -> tuple[float, ...]:
    """The times in seconds, oldest first, exact to an eighth of a percent.

    >>> [round(seconds, 2) for seconds in read_times(with_time(with_time("", 0.25), 60.0))]
    [0.25, 60.02]
    """
    return tuple(_seconds(times[place : place + 2]) for place in range(0, len(times), 2))


@cache
def _seconds(pair: str) -> float:
    steps = _NUMBER[pair[0]] * len(_LETTERS) + _NUMBER[pair[1]]
    return SHORTEST * exp(steps / STEPS)
