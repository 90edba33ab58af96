"""What sticks out of a delta, beside those of the other projects in a fold, and deltas without it. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedstep.server.sums import Block, Figures, Groups, apart, measured

__all__ = ["Scaled", "evened"]


class Scaled(NamedTuple):
    """Deltas, and how many times itself each of them is taken."""

    block: Block
    scales: Figures

    def columns(self, places: NDArray[np.intp]) -> NDArray[np.float32]:
        """What is taken of each at these places."""
        return _times(self.block.rows[:, places], self.scales)


def evened(found: Sequence[Scaled], projects: Groups, most: float) -> Sequence[Scaled]:
    """The same deltas, less what sticks out of them: themselves, where nothing does.

    A coordinate sticks out above `most` and three times its median over the projects; rare ones, whose median is 0,
    have the first alone. Looked at are only the few coordinates above the first.
    """
    places = _above(found, most)
    if not len(places):
        return found
    columns = np.concatenate([np.abs(scaled.columns(places)) for scaled in found])
    limits = np.maximum(most, 3.0 * np.median(projects.largest(columns), axis=0))
    return [_cut(scaled, places, limits) for scaled in found]


def _above(found: Sequence[Scaled], most: float) -> NDArray[np.intp]:
    """The coordinates that some delta has above `most`; each has at most (length / most)^2 of them."""
    highest = np.concatenate([scaled.block.highest for scaled in found])
    above = highest * np.concatenate([scaled.scales for scaled in found]) > most
    if not above.any():
        return np.array([], np.intp)
    places = [
        np.flatnonzero((np.abs(_times(deltas.rows[some], scales[some])) > most).any(axis=0))
        for (deltas, scales), some in zip(found, apart(above, [scaled.scales for scaled in found]), strict=True)
        if some.any()
    ]
    return np.unique(np.concatenate(places))


def _cut(scaled: Scaled, places: NDArray[np.intp], limits: Figures) -> Scaled:
    columns = scaled.columns(places)
    cut = (np.abs(columns) > limits).any(axis=1)
    if not cut.any():
        return scaled
    rows = _times(scaled.block.rows, np.where(cut, scaled.scales, 1.0))
    rows[np.ix_(cut, places)] = np.clip(columns[cut], -limits, limits)
    return Scaled(measured([rows])[0], np.where(cut, 1.0, scaled.scales))


def _times(rows: NDArray[np.float32], scales: Figures) -> NDArray[np.float32]:
    return rows * scales.astype(np.float32)[:, np.newaxis]
