"""What the page of a study draws: how predictions fare as a project's history grows, and whether chances are kept."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from fedstep.simulate.score_times import JENKINS
from fedstep.simulate.tally import Column, Tally

__all__ = ["AGES", "calibration_curve", "learning_curve"]

Point = tuple[float, float]
AGES = (0, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000_000)  # builds of a project, ends of the groups
BINS = 10
FEWEST = 20  # predictions in a bin, or a share of one project would look like a rule


def learning_curve(tallies: Mapping[str, Tally]) -> Sequence[float]:
    """For each group of ages the mean over projects of the error, in units of the yardstick's; NaN where none has it.

    For durations the yardstick is Jenkins' mean absolute error, for chances the Brier score of the base rate.
    """
    groups = pairwise(AGES)
    return [_mean([_error(tally, start, end) for tally in tallies.values()]) for start, end in groups]


def calibration_curve(tallies: Mapping[str, Tally]) -> Sequence[Point]:
    """Of the predictions in each tenth of [0, 1] the mean chance said and the share that came true."""
    said = np.concatenate([tally.column("said") for tally in tallies.values()])
    truth = np.concatenate([tally.column("truth") for tally in tallies.values()])
    bins = np.minimum((said * BINS).astype(int), BINS - 1)
    filled = [number for number in range(BINS) if (bins == number).sum() >= FEWEST]
    return [(float(said[bins == number].mean()), float(truth[bins == number].mean())) for number in filled]


def _error(tally: Tally, start: int, end: int) -> float:
    number, said, truth = (tally.column(name) for name in ("number", "said", "truth"))
    guess = tally.guesses().get(JENKINS)
    keep = (number >= start) & (number < end)
    if guess is None:
        return _skill_error(said[keep], truth[keep])
    keep &= np.isfinite(guess)
    yardstick = np.abs(guess[keep] - truth[keep]).sum()
    return float(np.abs(said[keep] - truth[keep]).sum() / yardstick) if yardstick else float("nan")


def _skill_error(said: Column, truth: Column) -> float:
    if len(truth) < FEWEST or not 0 < truth.sum() < len(truth):
        return float("nan")
    return float(((said - truth) ** 2).sum() / ((truth.mean() - truth) ** 2).sum())


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
