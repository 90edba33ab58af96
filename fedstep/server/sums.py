"""Weighted sums of vectors as C floats, in as few passes over the memory as that takes."""

from collections.abc import Iterator, Sequence
from math import sqrt
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "TOGETHER",
    "Cuts",
    "Figures",
    "Heaps",
    "Matrix",
    "Places",
    "Rows",
    "Vector",
    "apart",
    "norm",
    "stacked",
]

Vector: TypeAlias = NDArray[np.float32]
Matrix: TypeAlias = NDArray[np.float32]
Figures: TypeAlias = NDArray[np.float64]
Places: TypeAlias = NDArray[np.intp]
Kind = TypeVar("Kind", bound=np.generic)

ROOM = 1 << 16  # coordinates of a stack: short vectors share the price of a call, and stay in the processor's cache
MOST = 128  # vectors of a stack: the more are added to one sum, the more is lost by rounding
FEW = 8  # to stack fewer than these costs more than it saves
TOGETHER = 32  # long vectors whose sum is made apart, likewise


class Heaps(NamedTuple):
    """Sums of vectors that are known already, a row each, and the places of these vectors."""

    places: Sequence[Sequence[int]] = ()
    totals: Matrix = np.empty((0, 0), np.float32)


class Cuts(NamedTuple):
    """Coordinates of which less is taken: of which vector, at which place, what it has there, what is taken of it."""

    whose: Places = np.empty(0, np.intp)
    places: Places = np.empty(0, np.intp)
    values: Vector = np.empty(0, np.float32)
    taken: Figures = np.empty(0)

    def of(self, chosen: Places, count: int) -> "Cuts":
        """Those of the chosen vectors among so many, which are now the only ones."""
        numbers = np.full(count, -1)
        numbers[chosen] = np.arange(len(chosen))
        there = numbers[self.whose] >= 0
        return Cuts(numbers[self.whose[there]], self.places[there], self.values[there], self.taken[there])


class Rows(NamedTuple):
    """Vectors of one size, one after the other, each to be taken `scales` times.

    `stacks` has them again as rows of matrices; `lengths` has the L2 norm of each and `highest` what no coordinate of
    it is above, before it is scaled and cut.
    """

    vectors: Sequence[Vector]
    stacks: Sequence[Matrix]
    lengths: Figures
    highest: Figures
    scales: Figures
    heaps: Heaps = Heaps()
    cuts: Cuts = Cuts()

    def some(self, chosen: Places) -> "Rows":
        """Those at these places."""
        vectors = [self.vectors[place] for place in chosen]
        figures = (self.lengths[chosen], self.highest[chosen], self.scales[chosen])
        return Rows(vectors, stacked(vectors), *figures, cuts=self.cuts.of(chosen, len(self.vectors)))

    def total(self, weights: Figures) -> Vector:
        """The sum of what is taken of each, so many times: right to six digits of the lengths' sum."""
        times = (weights * self.scales).astype(np.float32)
        whole, left = np.zeros(len(self.vectors[0]), np.float32), times.copy()
        if self.heaps.places:
            whole += _from_heaps(self.heaps, left) @ self.heaps.totals
        pairs = [(some, stack) for stack, some in apart(self.stacks, left) if some.any()] if left.any() else []
        together = max(1, TOGETHER // len(self.stacks[0]))
        for start in range(0, len(pairs), together):
            whole += _sum(pairs[start : start + together])
        whose, places, values, taken = self.cuts
        if len(whose):
            less = weights[whose] * taken - times[whose] * values.astype(np.float64)
            whole += np.bincount(places, less, len(whole)).astype(np.float32)
        return whole


def apart(stacks: Sequence[Matrix], figures: NDArray[Kind]) -> Iterator[tuple[Matrix, NDArray[Kind]]]:
    """Each stack with the figures of its rows."""
    start = 0
    for stack in stacks:
        start, begun = start + len(stack), start
        yield stack, figures[begun:start]


def stacked(vectors: Sequence[Vector]) -> Sequence[Matrix]:
    """The vectors as rows of matrices; long ones are alone, and not copied."""
    together = min(MOST, ROOM // max(1, len(vectors[0])))
    if together < FEW:
        return [vector[np.newaxis] for vector in vectors]
    some = (vectors[start : start + together] for start in range(0, len(vectors), together))
    return [np.concatenate(part).reshape(len(part), -1) for part in some]  # np.stack takes twice as long


def norm(vector: NDArray[np.floating]) -> float:
    """The L2 norm, in double precision."""
    wide = vector.astype(np.float64, copy=False)
    return sqrt(wide.dot(wide))


def _from_heaps(heaps: Heaps, left: Vector) -> Vector:
    """How many times each heap's sum is taken: not at all, unless all its vectors are alike. `left` loses them then."""
    times = np.zeros(len(heaps.places), np.float32)
    for number, places in enumerate(heaps.places):
        if np.ptp(left[places]) == 0.0:
            times[number] = left[places[0]]
            left[places] = 0.0
    return times


def _sum(pairs: Sequence[tuple[Vector, Matrix]]) -> Vector:
    whole: Vector = pairs[0][0] @ pairs[0][1]
    for times, stack in pairs[1:]:
        whole += times @ stack
    return whole
