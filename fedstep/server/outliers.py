"""What sticks out of a delta, beside those of the other projects in a fold, and deltas without it. Pure."""

import numpy as np
from numpy.typing import NDArray

from fedstep.server.crowd import Groups
from fedstep.server.sums import Cuts, Figures, Places, Rows, Vector, apart

__all__ = ["evened"]

OFTEN = 3.0  # times the median over the projects


def evened(rows: Rows, projects: Groups, most: float) -> Rows:
    """The deltas less what sticks out of them: themselves, where nothing does.

    A coordinate sticks out above `most` and three times its median over the projects; rare ones, whose median is 0,
    have the first alone. Looked at are only the few coordinates above the first.
    """
    high = rows.highest * rows.scales > most
    if not high.any():
        return rows
    found, sums = _above(rows, high, most)
    sums += (rows.highest * rows.scales)[~high].sum()
    # a median above a third of `most` takes half of the projects; a bit less, because sums are rounded
    common = np.unique(found.places[sums[found.places] > 0.499 * most / OFTEN * len(projects.starts)])
    limits = np.full(len(sums), most)
    if len(common):
        limits[common] = np.maximum(most, OFTEN * _medians(rows, projects, common))
    taken = np.clip(found.taken, -limits[found.places], limits[found.places])
    cut = taken != found.taken
    return rows._replace(cuts=Cuts(found.whose[cut], found.places[cut], found.values[cut], taken[cut]))


def _above(rows: Rows, high: NDArray[np.bool_], most: float) -> tuple[Cuts, Vector]:
    """The coordinates above `most`, uncut, delta by delta, and the sum of the sizes of each in the `high` deltas.

    A delta has at most (length / most)^2 of them.
    """
    size, start = rows.stacks[0].shape[1], 0
    found, sums = [], np.zeros(size, np.float32)
    for stack, scales in apart(rows.stacks, np.where(high, rows.scales, 0.0).astype(np.float32)):
        if scales.any():
            sizes = stack * scales[:, np.newaxis]
            np.abs(sizes, out=sizes)
            sums += sizes.sum(axis=0) if len(stack) > 1 else sizes[0]
            whose, places = np.divmod(np.flatnonzero(sizes > most), size)
            values = stack[whose, places]
            found.append((whose + start, places, values, values * rows.scales[whose + start]))
        start += len(stack)
    return Cuts(*map(np.concatenate, zip(*found, strict=True))), sums


def _medians(rows: Rows, projects: Groups, places: Places) -> Figures:
    """Of the sizes of these coordinates over the projects."""
    columns = [
        np.take(stack, places, axis=1) * scales[:, np.newaxis] for stack, scales in apart(rows.stacks, rows.scales)
    ]
    medians: Figures = np.median(projects.largest(np.abs(np.concatenate(columns))), axis=0)
    return medians
