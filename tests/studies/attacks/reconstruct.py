"""The rows of an update, put together again from the numbers alone."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fedstep.model.labels import LabelledExample
from tests.studies.attacks.finding import Finding
from tests.studies.attacks.reading import Chances, Reader, usual_chances
from tests.studies.attacks.scene import AttackScene, Real, presence, word_columns
from tests.studies.attacks.view import CURVE, PROTECTIONS, Protection, View, fitting, views
from tests.studies.attacks.words import SMALLEST, SPARSE

ALIKE = 1e-4  # relative: words of the same rows move alike, but for rounding
SIZES = (5, 10, 15, 20, 30, 45)  # words of a row
LOUD = (0.0, 0.25, 0.5)  # of the largest rise: a flaky test among steady ones moves its words up, and far
Rows = NDArray[np.bool_]


def attack_rows(scene: AttackScene) -> Iterator[Finding]:
    """How near the nearest reconstruction comes to each row; guessing names as many rows by how usual words are.

    "Kept home" are rows of the same classes that are not in what is seen: what is reached there too is known of the
    project, not of a row.
    """
    for protection in fitting((*PROTECTIONS, *CURVE), scene):
        yield from row_findings("reconstruct", protection, scene)


def row_findings(attack: str, protection: Protection, scene: AttackScene) -> Iterator[Finding]:
    """F1 of the words of a row, the share of rows found as a whole, and both of flaky tests' rows alone."""
    usual, reader, chance = usual_chances(scene), Reader(protection, scene, attack), np.random.default_rng(scene.seed)
    sent, kept = _Tries(), _Tries()
    for view in views(protection, scene.attacked, scene, attack):
        count = 1 if protection.one_row else len(view.rows) * len(view.members)
        found, guessed = reconstructed(view, reader.chances(view), count, chance), _likely(usual, count, chance)
        sent.add(view.rows, found, guessed)
        kept.add(view.members[0].rest, found, guessed)
    for kind, flaky in (("rows", False), ("flaky rows", True)):
        yield from sent.findings(attack, kind, protection.name, flaky)
        yield from kept.findings(attack, f"{kind} kept home", protection.name, flaky)


class _Tries:
    """How near attacker and guesser came to each row."""

    def __init__(self) -> None:
        self._reached: list[Real] = []
        self._guessed: list[Real] = []
        self._flaky: list[Rows] = []

    def add(self, rows: Sequence[LabelledExample], found: Rows, drawn: Rows) -> None:
        truth = presence(rows)
        self._reached.append(_nearness(truth, found))
        self._guessed.append(_nearness(truth, drawn))
        self._flaky.append(np.array([ripe.label > 0.5 for ripe in rows], bool))

    def findings(self, attack: str, kind: str, protection: str, flaky: bool) -> Iterator[Finding]:
        """The mean of F1 and the share of whole rows, of all rows or of flaky tests alone, where there are any."""
        chosen = np.concatenate(self._flaky) | (not flaky)
        if chosen.any():
            ours, theirs = (np.concatenate(found)[chosen] for found in (self._reached, self._guessed))
            yield Finding(attack, f"F1 of {kind}", protection, float(ours.mean()), float(theirs.mean()))
            whole = (float((found > 1.0 - 1e-9).mean()) for found in (ours, theirs))
            yield Finding(attack, f"whole {kind}", protection, *whole)


def reconstructed(view: View, chances: Chances, count: int, chance: np.random.Generator) -> Rows:
    """At most so many rows that may be behind the view, the surest first, then those that its words make likely.

    Words that are in the same rows only have moved by the same amount: such a set is a part of a row, and most often
    of one alone; what nearly all rows have is added to it. Words that rose most are those of a flaky test.
    """
    moved = view.vector[word_columns()]
    present = np.abs(moved) > SMALLEST
    sparse = present.mean() < SPARSE
    usual = chances.rows > 0.5
    sure = [present] if sparse and count == 1 else [moved > share * max(moved.max(), SMALLEST) for share in LOUD]
    together = [group | (usual & present) for group in _together(moved, present)] if sparse else []
    room = count - count // 2 if count > 1 else 0
    found = np.array((sure + together)[: count - room], bool).reshape(-1, len(moved))
    return np.concatenate([found, _likely(chances, count - len(found), chance)])


def _likely(chances: Chances, count: int, chance: np.random.Generator) -> Rows:
    """So many rows: of the likeliest words, as many as rows have, and drawn ones, a quarter of them flaky."""
    best = [_best(likely, size) for likely in reversed(chances) for size in SIZES] if count > 4 * len(SIZES) else []
    left = count - len(best)
    drawn = _drawn(chances.flaky, left // 4, chance), _drawn(chances.rows, left - left // 4, chance)
    return np.concatenate([np.array(best, bool).reshape(-1, len(chances.rows)), *drawn])


def _best(likely: Real, size: int) -> NDArray[np.bool_]:
    return _marked(np.argsort(-likely, kind="stable")[:size], len(likely))


def _together(moved: Real, present: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Sets of two words or more that have moved by the same amount, the largest first."""
    places = np.flatnonzero(present)
    ordered = places[np.argsort(moved[places], kind="stable")]
    values = moved[ordered]
    breaks = np.flatnonzero(np.diff(values) > ALIKE * np.abs(values[1:])) + 1
    groups = sorted((one for one in np.split(ordered, breaks) if len(one) > 1), key=len, reverse=True)
    return [_marked(one, len(moved)) for one in groups]


def _marked(places: NDArray[np.intp], size: int) -> NDArray[np.bool_]:
    found = np.zeros(size, bool)
    found[places] = True
    return found


def _drawn(rates: Real, count: int, chance: np.random.Generator) -> Rows:
    return np.asarray(chance.random((max(0, count), len(rates))) < rates)


def _nearness(truth: Rows, found: Rows) -> Real:
    """For each true row the F1 of the nearest found one; a row without words counts as not found."""
    both = truth.astype(np.float32) @ found.T.astype(np.float32)
    sizes = truth.sum(axis=1)[:, None] + found.sum(axis=1)[None, :]
    return np.asarray((2 * both / np.maximum(1, sizes)).max(axis=1), np.float64)
