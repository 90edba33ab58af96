"""Linear margins and the sigmoid, in the standard library."""

from array import array
from collections.abc import Mapping, Sequence
from math import exp
from types import MappingProxyType
from typing import NamedTuple

Vector = array  # of C floats, type code "f", as in the wire format


class LocalWeights(NamedTuple):
    """A project's corrections of the shared model: by coordinate, and by name for private features."""

    shared: Mapping[int, float] = MappingProxyType({})
    private: Mapping[str, float] = MappingProxyType({})


def zeros(size: int) -> "array[float]":
    """Return a vector of `size` zeros."""
    return array("f", bytes(4 * size))


def margin(weights: Sequence[float], indices: Sequence[int], values: Sequence[float]) -> float:
    """Return the dot product of weights and one sparse row, in double precision.

    >>> margin([0.5, 0.0, -1.0], (0, 2), (1.0, 0.25))
    0.25
    """
    return sum(weights[index] * value for index, value in zip(indices, values, strict=True))


def sigmoid(score: float) -> float:
    """Return the probability of a log-odds score, in [0, 1], without overflow.

    >>> sigmoid(0.0)
    0.5
    """
    if score >= 0:
        return 1.0 / (1.0 + exp(-score))
    odds = exp(score)
    return odds / (1.0 + odds)
