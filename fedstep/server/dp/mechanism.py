"""The mechanism of differential privacy: clip, round, sum, add discrete Gaussian noise. Pure: chance is passed in.

Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020: an exact sampler, in whole
numbers alone, and the same guarantee as the Gaussian has, without the holes that floating point leaves in one.
"""

from collections.abc import Callable, Iterable
from math import ceil, isqrt, sqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

GRID = 1 << 20  # steps to the bound of a project's vector

Real: TypeAlias = NDArray[np.float64]
Grid: TypeAlias = NDArray[np.int64]
Below: TypeAlias = Callable[[int], int]  # a whole number from 0 to below this one, each as likely


def clip_and_concatenate(shrinking: Real, whole: Real) -> Real:
    """Both as one vector with an L2 norm of at most 1: the first is shrunk to the room that the second leaves it."""
    length, room = float(np.linalg.norm(shrinking)), sqrt(max(0.0, 1.0 - float(whole @ whole)))
    return np.concatenate([shrinking * min(1.0, room / length if length else 1.0), whole])


def quantised(vector: Real) -> Grid:
    """The vector, shrunk to an L2 norm of at most 1, in steps of the grid: the norm in whole numbers is at most GRID.

    Rounded towards zero, which never lengthens; where the float scale was a hair too large, it is taken again.
    """
    length = float(np.linalg.norm(vector))
    scale = GRID * min(1.0, 1.0 / length if length else 1.0)
    steps = np.trunc(vector * scale).astype(np.int64)
    while int(steps @ steps) > GRID * GRID:
        scale *= 1.0 - 2.0**-40
        steps = np.trunc(vector * scale).astype(np.int64)
    return steps


def noised_sum(parts: Iterable[Grid], size: int, multiplier: float, below: Below) -> Grid:
    """The sum of these vectors, one a project, with noise whose standard deviation is `multiplier` times the bound."""
    total = np.zeros(size, np.int64)
    for part in parts:
        total += part
    variance = variance_of(multiplier)
    total += np.array([discrete_gaussian(variance, below) for _ in range(size)], np.int64)
    return total


def variance_of(multiplier: float) -> int:
    """The variance in steps of the grid of noise that is `multiplier` times the bound, rounded up."""
    return ceil((multiplier * GRID) ** 2)


def discrete_gaussian(variance: int, below: Below) -> int:
    """A whole number x with a chance proportional to exp(-x^2 / (2 variance)), exactly: their algorithm 3."""
    width = isqrt(variance) + 1
    while True:
        drawn = _discrete_laplace(width, below)
        if _happens((abs(drawn) * width - variance) ** 2, 2 * variance * width * width, below):
            return drawn


def _discrete_laplace(width: int, below: Below) -> int:
    """A whole number x with a chance proportional to exp(-|x| / width): their algorithm 2."""
    while True:
        rest = below(width)
        if not _happens(rest, width, below):
            continue
        whole = 0
        while _happens(1, 1, below):
            whole += 1
        size, negative = rest + width * whole, below(2)
        if size or not negative:  # zero has no sign: it must not be drawn twice as often
            return -size if negative else size


def _happens(numerator: int, denominator: int, below: Below) -> bool:
    """True with a chance of exp(-numerator / denominator): their algorithm 1."""
    while numerator > denominator:
        if not _happens(1, 1, below):
            return False
        numerator -= denominator
    turns = 1
    while below(denominator * turns) < numerator:
        turns += 1
    return turns % 2 == 1
