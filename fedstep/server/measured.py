"""How long vectors are, and what can be summed of them in the same pass over the memory."""

from bisect import insort
from collections.abc import Sequence
from math import nan

import numpy as np

from fedstep.server.sums import TOGETHER, Figures, Heaps, Matrix, Rows, Vector, apart, norm, stacked

__all__ = ["measured"]

RUN = 512  # coordinates squared and summed as C floats, before they are summed in double precision


def measured(vectors: Sequence[Vector], kinds: Figures, most: float, times: float) -> Rows:
    """The vectors, which have one size, in their order; lengths are right to seven digits.

    Long ones of a kind that follow each other are summed while they are in the processor's cache, where they are no
    longer than `most` and than `times` the median of those before them: these are likely to be taken equally often.
    """
    stacks, size = stacked(vectors), len(vectors[0])
    squares = np.zeros((len(vectors), max(1, -(-size // RUN))), np.float32)
    with np.errstate(over="ignore"):
        if len(stacks) == len(vectors):
            heaps = _heaped(vectors, squares, kinds, most, times)
        else:
            heaps = Heaps((), np.empty((0, size), np.float32))
            for stack, figures in apart(stacks, squares):
                _square(stack, figures)
    lengths = _lengths(vectors, squares)
    highest = 1.0001 * np.minimum(lengths, np.sqrt(squares.max(axis=1)))  # the squares are rounded
    return Rows(vectors, stacks, lengths, highest, np.ones(len(vectors)), heaps)


def _heaped(vectors: Sequence[Vector], squares: Matrix, kinds: Figures, most: float, times: float) -> Heaps:
    """The sums; writes the squares down on the way."""
    heaps = len(vectors) // TOGETHER + 1 + np.count_nonzero(np.diff(kinds))
    totals = np.empty((heaps, len(vectors[0])), np.float32)
    places: list[list[int]] = []
    kind, total = nan, totals[0]
    before, ones = list[float](), np.ones(squares.shape[1], np.float32)
    for place, (vector, figures, its) in enumerate(zip(vectors, squares, kinds.tolist(), strict=True)):
        _square(vector, figures)
        length = float(figures.dot(ones)) ** 0.5
        insort(before, length)
        if length > most or length > times * before[len(before) // 2]:
            continue
        if its == kind and len(places[-1]) < TOGETHER:
            total += vector
            places[-1].append(place)
        else:
            kind, total = its, totals[len(places)]
            total[:] = vector
            places.append([place])
    return Heaps(places, totals[: len(places)])


def _square(rows: Vector | Matrix, squares: Vector | Matrix) -> None:
    """Writes down the sums of the squares of each run, and of what is left at the end."""
    whole, rest = divmod(rows.shape[-1], RUN)
    if whole:
        runs = rows[..., : whole * RUN].reshape(*rows.shape[:-1], whole, RUN)
        np.vecdot(runs, runs, squares[..., :whole])
    if rest:
        last = rows[..., -rest:]
        np.vecdot(last, last, squares[..., -1])


def _lengths(vectors: Sequence[Vector], squares: Matrix) -> Figures:
    """Numbers that have no square among C floats take a second pass."""
    lengths: Figures = np.sqrt(squares.sum(axis=1, dtype=np.float64))
    for place in np.flatnonzero(~np.isfinite(lengths)):
        lengths[place] = norm(vectors[int(place)])
    return lengths
