"""Lengths and weighted sums of long vectors, in as few passes over the memory as that takes."""

from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import groupby
from math import isfinite, sqrt
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "Figures", "Groups", "Part", "Vector", "apart", "blocks", "measured", "norm", "total", "within"]

Vector: TypeAlias = NDArray[np.float32]
Figures: TypeAlias = NDArray[np.float64]
Kind = TypeVar("Kind", bound=np.generic)

ROOM = 1 << 16  # coordinates of a block: short vectors share the price of a call, and a long one is not copied
RUN = 512  # coordinates squared and summed as C floats, before they are summed in double precision
TOGETHER = 32  # vectors summed as C floats, likewise


class Block(NamedTuple):
    """Vectors of one size, one a row; the L2 norm of each, and what no coordinate of it is above."""

    rows: NDArray[np.float32]
    lengths: Figures
    highest: Figures


class Groups(NamedTuple):
    """Which of a sequence are whose: their places group by group, and where in these each group begins."""

    places: NDArray[np.intp]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, names: Iterable[str]) -> "Groups":
        """Those of the same name are a group. There must be one."""
        numbers: dict[str, int] = {}
        found = np.array([numbers.setdefault(name, len(numbers)) for name in names])
        places = np.argsort(found, kind="stable")
        return cls(places, np.searchsorted(found[places], np.arange(len(numbers))))

    def largest(self, values: NDArray[np.floating]) -> Figures:
        """The largest value of each group, in each column if there are several."""
        return np.maximum.reduceat(values[self.places], self.starts, axis=0, dtype=np.float64)


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


def blocks(vectors: Sequence[Vector]) -> tuple[Block, ...]:
    """The vectors, which have one size, in their order."""
    together = max(1, ROOM // max(1, len(vectors[0])))
    if together == 1:
        return measured([vector[np.newaxis] for vector in vectors])
    return measured([np.stack(vectors[start : start + together]) for start in range(0, len(vectors), together)])


def measured(stacks: Sequence[NDArray[np.float32]]) -> tuple[Block, ...]:
    """A block of each, its rows measured in one pass, right to seven digits.

    Numbers that have no square among C floats take a second pass.
    """
    with np.errstate(over="ignore"):
        sums, highest = (np.concatenate(column) for column in zip(*map(_squares, stacks), strict=True))
    lengths = np.sqrt(sums)
    if not np.isfinite(lengths).all():
        rows = (row for stack in stacks for row in stack)
        lengths = np.array([found if isfinite(found) else norm(row) for found, row in zip(lengths, rows, strict=True)])
    highest = 1.0001 * np.minimum(lengths, np.sqrt(highest))  # the squares are rounded
    return tuple(map(Block, stacks, apart(lengths, stacks), apart(highest, stacks)))


def apart(figures: NDArray[Kind], stacks: Iterable[Sized]) -> Iterator[NDArray[Kind]]:
    """A figure of each row, stack by stack."""
    start = 0
    for stack in stacks:
        start, begun = start + len(stack), start
        yield figures[begun:start]


def _squares(rows: NDArray[np.float32]) -> tuple[Figures, Figures]:
    """Of each row the sum of its squares, and what no square of it is above."""
    even = rows.shape[1] // RUN * RUN
    runs = rows[:, :even].reshape(len(rows), even // RUN, RUN)
    squares = np.vecdot(runs, runs)
    sums = np.add.reduce(squares, axis=1, dtype=np.float64)
    highest = np.maximum.reduce(squares, axis=1, initial=0.0)
    if even == rows.shape[1]:
        return sums, highest
    rest = np.vecdot(rows[:, even:], rows[:, even:])
    return sums + rest, np.maximum(highest, rest)


def norm(vector: NDArray[np.floating]) -> float:
    """The L2 norm, in double precision."""
    wide = vector.astype(np.float64, copy=False)
    return sqrt(wide.dot(wide))


def _weight(part: Part) -> float:
    return part.weight
