"""The rows of an update, put together again from the numbers alone."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedstep.model.labels import Ripe
from fedstep.simulate.attacks.finding import Finding
from fedstep.simulate.attacks.scene import Member, Real, Scene, presence, word_columns
from fedstep.simulate.attacks.view import CURVE, PROTECTIONS, Protection, View, fitting, views
from fedstep.simulate.attacks.words import SMALLEST, SPARSE

__all__ = ["attack_rows", "reconstructed", "row_findings"]

ALIKE = 1e-4  # relative: words of the same rows move alike, but for rounding
LOUD = (0.0, 0.25, 0.5)  # of the largest rise: a flaky test among steady ones moves its words up, and far
Rows = NDArray[np.bool_]


def attack_rows(scene: Scene) -> Iterator[Finding]:
    """How near the nearest reconstruction comes to each row; guessing draws as many rows by the base rate of words.

    "Kept home" are rows of the same classes that are not in what is seen: what is reached there too is known of the
    project, not of a row.
    """
    for protection in fitting((*PROTECTIONS, *CURVE), scene):
        yield from row_findings("reconstruct", protection, scene)


def row_findings(attack: str, protection: Protection, scene: Scene) -> Iterator[Finding]:
    """F1 of the words of a row, the share of rows found as a whole, and both of flaky tests' rows alone."""
    known, chance = _known(scene), np.random.default_rng(scene.seed)
    sent, kept = _Tries(), _Tries()
    for view in views(protection, scene.attacked, scene, attack):
        count = 1 if protection.one_row else len(view.rows) * len(view.members)
        found, drawn = reconstructed(view, known, count, chance), _drawn(known.rates, count, chance)
        sent.add(view.rows, found, drawn)
        kept.add(view.members[0].rest, found, drawn)
    for kind, flaky in (("rows", False), ("flaky rows", True)):
        yield from sent.findings(attack, kind, protection.name, flaky)
        yield from list(kept.findings(attack, f"{kind} kept home", protection.name, flaky))[:1]


class Known(NamedTuple):
    """What his own projects tell the attacker of a word: the share of rows that have it, and where it stood still."""

    rates: Real
    hidden: Real


def _known(scene: Scene) -> Known:
    rows = presence([ripe for one in scene.own for ripe in one.rows])
    still = np.concatenate([np.tile(_still(one), (len(one.rows), 1)) for one in scene.own])
    return Known(rows.mean(axis=0), (rows & still).sum(axis=0) / np.maximum(1, still.sum(axis=0)))


def _still(member: Member) -> Rows:
    """The words that its update is silent about."""
    return np.asarray(np.abs(member.delta()[word_columns()]) <= SMALLEST)


class _Tries:
    """How near attacker and guesser came to each row."""

    def __init__(self) -> None:
        self._reached: list[Real] = []
        self._guessed: list[Real] = []
        self._flaky: list[Rows] = []

    def add(self, rows: Sequence[Ripe], found: Rows, drawn: Rows) -> None:
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


def reconstructed(view: View, known: Known, count: int, chance: np.random.Generator) -> Rows:
    """At most so many rows that may be behind the view, the surest first, then guesses among the words that moved.

    Words that are in the same rows only have moved by the same amount: such a set is a part of a row, and most often
    of one alone; what nearly all rows have is added to it. Words that rose most are those of a flaky test. A word that
    stood still may be a veiled one: it is guessed as often as it was there in projects of his own where it stood still.
    """
    moved = view.vector[word_columns()]
    present = np.abs(moved) > SMALLEST
    sparse = present.mean() < SPARSE
    usual = known.rates > 0.5
    sure = [present] if sparse and count == 1 else [moved > share * max(moved.max(), SMALLEST) for share in LOUD]
    together = [group | (usual & present) for group in _together(moved, present)] if sparse else []
    found = (sure + together)[:count]
    guesses = _drawn(np.where(present, known.rates, known.hidden), count - len(found), chance)
    return np.concatenate([np.array(found, bool).reshape(-1, len(moved)), guesses])


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
