"""What an update may reveal and move: the length of a delta and the count of its rows, bounded."""

from array import array
from math import sqrt

from fedstep.federation.tensors import Vector

__all__ = ["bucket", "clip", "norm"]

MOST_ROWS = 1 << 20


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
