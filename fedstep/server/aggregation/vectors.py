"""Represent the contributors of an aggregation as index arrays and their deltas as one matrix."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import pairwise
from math import sqrt
from typing import NamedTuple, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]
Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.intp]
Element = TypeVar("Element", bound=np.generic)

RUN = 512  # coordinates whose squares are summed in single precision before they are summed in double precision
BLOCK = 1 << 16  # coordinates per block, which stays in the processor's cache
MIN_ROWS = 8  # per block: longer rows stay alone and are not copied (100 of 65,536 coordinates took 40 % longer)
GROUP_ROWS = 32  # long rows per partial sum: one that is clipped brings the others back to memory
MAX_ROWS = 128  # per block: the more rows are summed in one go in single precision, the more is lost by rounding


class Contributor(NamedTuple):
    """The origin of an update; contributors sort in the order of these fields.

    `staleness` counts the versions made since the one the update was learned from. `owner` answers for the project;
    where it is unknown it is "", and the project counts as its own owner.
    """

    staleness: int
    owner: str
    project: str
    id: str


class GroupIndex(NamedTuple):
    """The partition of a sequence into groups: `order` lists the row indices by group, `starts` where each begins."""

    order: Indices
    starts: Indices

    @classmethod
    def of(cls, numbers: Indices) -> Self:
        """Group the rows that have the same number. Needs at least one row."""
        order = np.argsort(numbers, kind="stable")
        return cls(order, np.append(0, 1 + np.flatnonzero(np.diff(numbers[order]))))

    def largest(self, values: NDArray[Element]) -> NDArray[Element]:
        """Return the largest value of each group, per column where `values` has two dimensions, in any group order."""
        if len(self.starts) == len(self.order):
            return values
        return np.maximum.reduceat(values[self.order], self.starts, axis=0)

    def repeated(self) -> Iterator[Indices]:
        """Yield the row indices of each group that has several."""
        ends = np.append(self.starts[1:], len(self.order))
        for start, end in zip(self.starts.tolist(), ends.tolist(), strict=True):
            if end - start > 1:
                yield self.order[start:end]

    def above(self, values: Floats, limit: float) -> Iterator[Indices]:
        """Yield the row indices of each group whose values sum to more than `limit`."""
        sums = np.add.reduceat(values[self.order], self.starts)
        ends = np.append(self.starts[1:], len(self.order))
        for group in np.flatnonzero(sums > limit):
            yield self.order[self.starts[group] : ends[group]]


class Contributors(NamedTuple):
    """The contributors of one aggregation in columns, computed once for all tasks.

    `staleness_weights` has the weight of each delta. The others number the project, the pair of owner and project
    (`shares`), and the owner of each. A contributor without an owner has an owner number of its project's own.
    """

    staleness_weights: Floats
    projects: Indices
    shares: Indices
    owners: Indices

    @classmethod
    def of(cls, contributors: Sequence[Contributor]) -> Self:
        """Return the columns of these contributors, in their order."""
        return cls(
            np.array([staleness_weight(contributor.staleness) for contributor in contributors]),
            index_names(contributor.project for contributor in contributors),
            index_names((contributor.owner, contributor.project) for contributor in contributors),
            index_names(contributor.owner or (contributor.project,) for contributor in contributors),
        )

    def select(self, indices: Sequence[int]) -> "Contributors":
        """Return the contributors at these ascending indices."""
        if len(indices) == len(self.staleness_weights):
            return self
        selected = np.array(indices)
        return Contributors(*(column[selected] for column in self))


class PartialSums(NamedTuple):
    """Sums of consecutive long rows of equal weight, made while each row is in the cache to be measured.

    They save the second pass over the memory for rows that are not clipped. Without them an aggregation of 100 rows of
    65,536 coordinates takes 1.3 times as long; rows of the present tasks are short, and have none.
    """

    groups: Sequence[slice] = ()
    totals: NDArray[np.float32] = np.empty((0, 0), np.float32)


class DeltaBatch(NamedTuple):
    """The deltas of one task: float32 vectors of `size` coordinates, each to be multiplied by its scale.

    `norms` are upper bounds of the L2 norms of the scaled rows (exact until coordinates are clipped), `peaks` of the
    absolute values of their coordinates. The rows are those that were given and are never written. They are copied
    block by block: one matrix of 100 rows of 65,536 coordinates made an aggregation 25 % slower.
    """

    rows: Sequence[FloatArray]
    norms: Floats
    peaks: Floats
    scales: Floats
    partial_sums: PartialSums = PartialSums()

    @classmethod
    def of(cls, deltas: Sequence[FloatArray], weights: Floats) -> Self:
        """Measure deltas of one size; norms are right to six digits, and long deltas of equal weight are summed."""
        norms, peaks, partial_sums = compute_norms(deltas, weights)
        return cls(deltas, norms, peaks, np.ones(len(deltas)), partial_sums)

    @property
    def size(self) -> int:
        """Return the number of coordinates."""
        return len(self.rows[0])

    def clip_norms(self, bound: float) -> Self:
        """Return the batch with each delta scaled to an L2 norm of at most `bound`."""
        scales = np.minimum(1.0, bound / np.where(self.norms > 0.0, self.norms, bound))
        return self._replace(norms=self.norms * scales, peaks=self.peaks * scales, scales=self.scales * scales)

    def above(self, limit: float) -> tuple[Indices, Indices, Floats]:
        """Return row, column and scaled value of each coordinate whose absolute value is above `limit`."""
        selected = np.flatnonzero(self.peaks > limit)
        exceeding = [(np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0))]
        for block_rows, block in _blocks([self.rows[row] for row in selected.tolist()]):
            rows = selected[block_rows]
            limits = (limit / self.scales[rows]).astype(np.float32)
            indices, columns = np.divmod(np.flatnonzero(np.abs(block) > limits[:, np.newaxis]), self.size)
            exceeding.append((rows[indices], columns, block[indices, columns] * self.scales[rows[indices]]))
        rows, columns, values = map(np.concatenate, zip(*exceeding, strict=True))
        return rows, columns, values

    def columns(self, columns: Indices) -> Floats:
        """Return the scaled values of some columns: a row for each delta."""
        return np.array([row[columns] for row in self.rows]) * self.scales[:, np.newaxis]

    def replace(self, rows: Indices, columns: Indices, values: Floats) -> Self:
        """Return the batch with other scaled values at these coordinates, which ascend by row."""
        replaced = list(self.rows)
        unscaled = values / self.scales[rows]
        changed, starts = np.unique(rows, return_index=True)
        for row, start, end in zip(changed.tolist(), starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
            replaced[row] = replaced[row].copy()
            replaced[row][columns[start:end]] = unscaled[start:end]
        return self._replace(rows=replaced, partial_sums=PartialSums())

    def weighted_sum(self, weights: Floats) -> FloatArray:
        """Return the sum of the scaled rows, each times its weight, right to six digits of the sum of their norms."""
        factors = (weights * self.scales).astype(np.float32)
        total = np.zeros(self.size, np.float32)
        summed = np.zeros(len(factors), np.bool_)
        for group, partial in zip(*self.partial_sums, strict=True):
            if (factors[group] == factors[group.start]).all():
                total += factors[group.start] * partial
                summed[group] = True
        for block_rows, block in _blocks(self.rows):
            if summed[block_rows].all():
                continue
            # numpy multiplies a matrix of one row six times as slowly as a vector
            total += factors[block_rows] @ block if len(block) > 1 else factors[block_rows] * block[0]
        return total

    def dot(self, vector: FloatArray) -> Floats:
        """Return the inner product of each scaled row with a vector."""
        products = np.empty(len(self.rows))
        for block_rows, block in _blocks(self.rows):
            products[block_rows] = block @ vector
        return products * self.scales

    def select(self, rows: Indices) -> Self:
        """Return the batch of these rows."""
        deltas = [self.rows[row] for row in rows.tolist()]
        return type(self)(deltas, self.norms[rows], self.peaks[rows], self.scales[rows])


def compute_norms(deltas: Sequence[FloatArray], weights: Floats) -> tuple[Floats, Floats, PartialSums]:
    """Return the L2 norm of each delta, an upper bound of the sizes of its coordinates, and sums made on the way."""
    squares = np.zeros((len(deltas), len(deltas[0]) // RUN + 1), np.float32)
    partial_sums = PartialSums()
    with np.errstate(over="ignore"):
        if is_long(len(deltas[0])):
            groups = _equal_runs(weights)
            # One matrix: separate vectors go back to the system and cost page faults, a third of the time.
            totals = np.empty((len(groups), len(deltas[0])), np.float32)
            for group, total in zip(groups, totals, strict=True):
                _measure_and_sum(deltas[group], squares[group], total)
            partial_sums = PartialSums(groups, totals)
        else:
            for rows, block in _blocks(deltas):
                _sum_squares(block, squares[rows])
    norms: Floats = np.sqrt(squares.sum(axis=1, dtype=np.float64))
    for index in np.flatnonzero(~np.isfinite(norms)):  # the squares are too large for float32
        norms[index] = norm(deltas[int(index)])
    peaks = 1.0001 * np.minimum(norms, np.sqrt(squares.max(axis=1)))  # the squares are rounded
    return norms, peaks, partial_sums


def is_long(size: int) -> bool:
    """Return whether rows of so many coordinates are taken one by one."""
    return MIN_ROWS * size > BLOCK


def _measure_and_sum(deltas: Sequence[FloatArray], squares: NDArray[np.float32], total: FloatArray) -> None:
    """Write the sums of squares of each delta, and the sum of the deltas."""
    total[:] = 0.0
    for delta, row_squares in zip(deltas, squares, strict=True):
        _sum_squares(delta[np.newaxis], row_squares[np.newaxis])
        total += delta


def _sum_squares(block: NDArray[np.float32], squares: NDArray[np.float32]) -> None:
    """Write the sum of squares of each run of `RUN` coordinates, and last that of the rest."""
    runs, rest = divmod(block.shape[1], RUN)
    if runs:
        whole = block[:, : runs * RUN].reshape(len(block), runs, RUN)
        np.vecdot(whole, whole, squares[:, :runs])
    if rest:
        np.vecdot(block[:, -rest:], block[:, -rest:], squares[:, runs])


def _equal_runs(weights: Floats) -> list[slice]:
    """Return the slices of at most `GROUP_ROWS` consecutive equal weights."""
    changes = [0, *(1 + np.flatnonzero(np.diff(weights))).tolist(), len(weights)]
    return [
        slice(begin, min(begin + GROUP_ROWS, end))
        for start, end in pairwise(changes)
        for begin in range(start, end, GROUP_ROWS)
    ]


def _blocks(rows: Sequence[FloatArray]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield the rows as matrices of at most `BLOCK` coordinates, each with the slice of rows that it has."""
    if not rows:
        return
    if is_long(len(rows[0])):
        yield from ((slice(index, index + 1), row[np.newaxis]) for index, row in enumerate(rows))
        return
    count = min(MAX_ROWS, BLOCK // max(1, len(rows[0])))
    for start in range(0, len(rows), count):
        part = rows[start : start + count]
        yield slice(start, start + len(part)), np.concatenate(part).reshape(len(part), -1)


def norm(vector: NDArray[np.floating]) -> float:
    """Return the L2 norm, computed in double precision."""
    wide = vector.astype(np.float64, copy=False)
    return sqrt(wide.dot(wide))


def index_names(names: Iterable[Hashable]) -> Indices:
    """Return a number for each name: equal names have equal numbers, counted from 0 in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.intp)


def staleness_weight(staleness: int) -> float:
    """Return 1 for a delta learned from the newest version, and 1 / sqrt(1 + staleness) for an older one.

    >>> staleness_weight(3)
    0.5
    """
    return float((1.0 + max(0, staleness)) ** -0.5)
