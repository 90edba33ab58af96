"""Lengths and weighted sums of long vectors, in as few passes over the memory as that takes."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from math import isfinite, sqrt
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Measure", "Part", "Vector", "measured", "norm", "total", "within"]

Vector: TypeAlias = NDArray[np.float32]

RUN = 512  # coordinates squared and summed as C floats, before they are summed in double precision
TOGETHER = 32  # vectors summed as C floats, likewise


class Measure(NamedTuple):
    """The L2 norm of a vector, and what no coordinate of it is above."""

    length: float
    highest: float


class Part(NamedTuple):
    """What a sum takes of a vector: so many times itself. `length` is the vector's."""

    vector: Vector
    weight: float
    length: float


def total(parts: Iterable[Part], size: int) -> NDArray[np.float64]:
    """The sum, in an order that depends on the weights and on that of the parts alone.

    Vectors of one weight are multiplied by it together: most deltas are as short as they may be, and equally stale.
    """
    whole, some = np.zeros(size), np.empty(size, np.float32)
    for weight, alike in groupby(sorted(parts, key=_weight), _weight):
        vectors = [part.vector for part in alike]
        for start in range(0, len(vectors), TOGETHER):
            some[:] = vectors[start]
            for vector in vectors[start + 1 : start + TOGETHER]:
                some += vector
            if weight != 1.0:
                some *= np.float32(weight)
            whole += some
    return whole


def within(parts: Sequence[Part], most: float) -> Sequence[Part]:
    """Parts with the same sum, which is shrunk to a length of `most`: themselves, where they cannot be longer."""
    if sum(part.weight * part.length for part in parts) <= most:
        return parts
    whole = total(parts, len(parts[0].vector))
    length = norm(whole)
    return (Part(whole.astype(np.float32), min(1.0, most / length if length else 1.0), length),)


def measured(vector: Vector) -> Measure:
    """Both in one pass, right to seven digits; numbers that have no square among C floats take a second one."""
    even = len(vector) // RUN * RUN
    runs, rest = vector[:even].reshape(-1, RUN), vector[even:]
    with np.errstate(over="ignore"):
        squares, last = np.vecdot(runs, runs), float(np.vecdot(rest, rest))
    length = sqrt(float(squares.sum(dtype=np.float64)) + last)
    if not isfinite(length):
        length = norm(vector)
    return Measure(length, min(length, 1.0001 * sqrt(max(last, float(squares.max(initial=0.0))))))


def norm(vector: NDArray[np.floating]) -> float:
    """The L2 norm, in double precision."""
    wide = vector.astype(np.float64, copy=False)
    return float(np.sqrt(wide @ wide))


def _weight(part: Part) -> float:
    return part.weight
