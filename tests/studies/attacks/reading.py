"""What an attacker learns from shadow views of his own projects: how likely a word that moved so far is in a row.

Without a view, it is how usual words are in his own rows: what guessing goes by.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedstep.model.labels import LabelledExample
from tests.studies.attacks.scene import AttackScene, Real, presence, word_columns
from tests.studies.attacks.view import Protection, View, views

CELLS = 40  # in which words are counted by how far they moved, and likewise by how usual they are
DOUBT = 2.0  # words in a cell that say as much as how usual they are
RAREST = 1e-3  # no word is taken to be rarer in rows


class Chances(NamedTuple):
    """For each word how likely it is in a row of the project asked about, and in that of a flaky test."""

    rows: Real
    flaky: Real


def usual_chances(scene: AttackScene) -> Chances:
    """The shares of the attacker's own rows, and of their flaky ones, that have the word."""
    return _shares([ripe for one in scene.own for ripe in one.rows])


class Reader:
    """Reads chances from views of one protection."""

    def __init__(self, protection: Protection, scene: AttackScene, attack: str) -> None:
        """Learns from as many views of the attacker's own projects as will be attacked."""
        self._usual = usual_chances(scene)
        shadows = views(protection, scene.own, scene, f"{attack} shadow")
        moved = np.array([view.vector[word_columns()] for view in shadows])
        rows = np.array([_shares(view.rows).rows for view in shadows])
        flaky = np.array([_shares([ripe for one in view.members for ripe in one.rows]).flaky for view in shadows])
        self._rows, self._flaky = _Table(moved, self._usual.rows, rows), _Table(moved, self._usual.flaky, flaky)

    def chances(self, view: View) -> Chances:
        """What the view says of each word."""
        moved = view.vector[word_columns()]
        return Chances(self._rows.read(moved), self._flaky.read(moved))


class _Table:
    """How much likelier than usual a word is that moved so far, as the attacker's own views have it."""

    def __init__(self, moved: Real, usual: Real, truth: Real) -> None:
        """A row of `moved` and `truth` for each view, a column for each word, as in `usual`."""
        self._usual = np.maximum(usual, RAREST)
        self._steps = tuple(np.unique(np.quantile(one, np.linspace(0, 1, CELLS))) for one in (moved, self._usual))
        cells = np.concatenate([self._cells(one) for one in moved])
        expected = np.bincount(cells, np.tile(self._usual, len(moved)), minlength=(CELLS + 1) ** 2)
        there = np.bincount(cells, truth.ravel(), minlength=(CELLS + 1) ** 2)
        self._lift = (there + DOUBT) / (expected + DOUBT)

    def read(self, moved: Real) -> Real:
        """The chance of each word."""
        return np.asarray(np.minimum(1.0, self._usual * self._lift[self._cells(moved)]))

    def _cells(self, moved: Real) -> NDArray[np.intp]:
        far, often = (np.searchsorted(steps, of) for steps, of in zip(self._steps, (moved, self._usual), strict=True))
        return np.asarray(far * (CELLS + 1) + often)


def _shares(rows: Sequence[LabelledExample]) -> Chances:
    """Those of these rows that have the word; where none is flaky, of all of them."""
    flaky = [ripe for ripe in rows if ripe.label > 0.5] or rows
    return Chances(presence(rows).mean(axis=0), presence(flaky).mean(axis=0))
