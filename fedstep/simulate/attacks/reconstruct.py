"""The rows of an update, put together again from the numbers alone."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fedstep.model.labels import Ripe
from fedstep.simulate.attacks.finding import Finding
from fedstep.simulate.attacks.scene import Real, Scene, presence, word_columns
from fedstep.simulate.attacks.view import CURVE, PROTECTIONS, Protection, View, fitting, views
from fedstep.simulate.attacks.words import SMALLEST, SPARSE

__all__ = ["attack_rows", "reconstructed", "row_findings"]

ALIKE = 1e-4  # relative: words of the same rows move alike, but for rounding
LOUD = (0.0, 0.25, 0.5)  # of the largest rise: a flaky test among steady ones moves its words up, and far
Rows = NDArray[np.bool_]


def attack_rows(scene: Scene) -> Iterator[Finding]:
    """How near the nearest reconstruction comes to each row; guessing draws as many rows by the base rate of words."""
    for protection in fitting((*PROTECTIONS, *CURVE), scene):
        yield from row_findings("reconstruct", protection, scene)


def row_findings(attack: str, protection: Protection, scene: Scene) -> Iterator[Finding]:
    """F1 of the words of a row, the share of rows found as a whole, and both of flaky tests' rows alone."""
    rates = presence([ripe for one in scene.own for ripe in one.rows]).mean(axis=0)
    chance = np.random.default_rng(scene.seed)
    reached, guessed, flaky = [], [], []
    for view in views(protection, scene.attacked, scene, attack):
        truth = presence(view.rows)
        count = 1 if protection.one_row else len(view.rows) * len(view.members)
        reached.append(_nearness(truth, reconstructed(view, rates, count, chance)))
        guessed.append(_nearness(truth, _drawn(rates, count, chance)))
        flaky.append(_flaky(view.rows))
    for kind, chosen in (("rows", [np.ones(len(one), bool) for one in flaky]), ("flaky rows", flaky)):
        keep = np.concatenate(chosen)
        if keep.any():
            ours, theirs = (np.concatenate(found)[keep] for found in (reached, guessed))
            yield Finding(attack, f"F1 of {kind}", protection.name, float(ours.mean()), float(theirs.mean()))
            whole = (float((found > 1.0 - 1e-9).mean()) for found in (ours, theirs))
            yield Finding(attack, f"whole {kind}", protection.name, *whole)


def reconstructed(view: View, rates: Real, count: int, chance: np.random.Generator) -> Rows:
    """At most so many rows that may be behind the view, the surest first, then guesses among the words that moved.

    Words that are in the same rows only have moved by the same amount: such a set is a part of a row, and most often
    of one alone; what nearly all rows have is added to it. Words that rose most are those of a flaky test.
    """
    moved = view.vector[word_columns()]
    present = np.abs(moved) > SMALLEST
    sparse = present.mean() < SPARSE
    usual = rates > 0.5
    sure = [present] if sparse and count == 1 else [moved > share * max(moved.max(), SMALLEST) for share in LOUD]
    together = [group | (usual & present) for group in _together(moved, present)] if sparse else []
    known = (sure + together)[:count]
    guesses = _drawn(np.where(present, rates, 0.0), count - len(known), chance)
    return np.concatenate([np.array(known, bool).reshape(-1, len(moved)), guesses])


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


def _flaky(rows: Sequence[Ripe]) -> NDArray[np.bool_]:
    return np.array([ripe.label > 0.5 for ripe in rows], bool)
