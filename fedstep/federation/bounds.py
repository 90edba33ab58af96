"""What an update may reveal and move: the length of a delta, the count of its rows and its noise, bounded."""

from array import array
from math import sqrt

from fedstep.federation.tensors import Vector

__all__ = ["LOUDEST", "MOST_NOISE", "NOISE", "bucket", "clip", "loudness", "norm"]

MOST_ROWS = 1 << 20
NOISE = 0.04  # standard deviation of a number in a sum of shares, in units of the head's bound, unless a leader says
MOST_NOISE = 1.0  # likewise: more of it leaves nothing to learn
WHOLE_BATCH = 50  # rows
LOUDEST = sqrt(WHOLE_BATCH)  # what loudness is not above


def norm(delta: Vector) -> float:
    """The L2 norm."""
    return sqrt(sum(number * number for number in delta))


def clip(delta: Vector, bound: float) -> Vector:
    """The delta itself, or shrunk to an L2 norm of at most `bound`."""
    length = norm(delta)
    if length <= bound:
        return delta
    share = bound / length * (1 - 2**-23)  # rounding to C floats must not carry the norm over the bound
    return array("f", (number * share for number in delta))


def bucket(count: int) -> int:
    """The largest power of two that is not above a count of at least 1: exact sizes of batches stay home.

    >>> bucket(50)
    32
    """
    return 1 << (min(count, MOST_ROWS).bit_length() - 1)


def loudness(rows: int) -> float:
    """How many times the usual noise a head has whose batches have at least so many rows: of few, each tells more.

    >>> loudness(50), loudness(8)
    (1.0, 2.5)
    """
    return max(1.0, sqrt(WHOLE_BATCH / max(1, rows)))
