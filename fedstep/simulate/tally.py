"""The predictions of one project beside what came of them, in columns: eight bytes a number, whatever the history."""

from array import array
from collections.abc import Mapping
from math import nan
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedstep.simulate.participant import Prediction

__all__ = ["Column", "Tally"]

Column: TypeAlias = NDArray[np.float64]


class Tally:
    """Columns that grow by a prediction; what a simple predictor did not say is NaN."""

    def __init__(self) -> None:
        self._columns: dict[str, array[float]] = {
            name: array("d") for name in ("number", "said", "low", "high", "truth")
        }
        self._guesses: dict[str, array[float]] = {}

    def add(self, one: Prediction) -> None:
        """One more prediction whose truth is known."""
        count = len(self)
        for name, column in self._columns.items():
            column.append(getattr(one, name))
        for name in one.guesses.keys() - self._guesses.keys():
            self._guesses[name] = array("d", [nan]) * count
        for name, column in self._guesses.items():
            column.append(one.guesses.get(name, nan))

    def __len__(self) -> int:
        return len(self._columns["said"])

    def column(self, name: str) -> Column:
        """`number`, `said`, `low`, `high` or `truth`, one value a prediction."""
        return np.array(self._columns[name])

    def guesses(self) -> Mapping[str, Column]:
        """What each simple predictor said, by its name."""
        return {name: np.array(column) for name, column in sorted(self._guesses.items())}
