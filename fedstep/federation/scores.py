"""How a snapshot on trial compares with production on rows that nobody has learned: one number a head."""

from array import array
from collections.abc import Sequence
from math import exp, log1p

from fedstep.federation.wire import Model, Score
from fedstep.model.labels import Ripe
from fedstep.model.linear import margin
from fedstep.model.sgd import PACES

__all__ = ["BOUND", "loss", "score"]

BOUND = 0.1  # of a batch's mean difference: nats for the chances, spreads for the time


def score(head: str, model: Model, rows: Sequence[Ripe]) -> Score:
    """The weighted mean loss difference of the rows, trial less production, by the shared heads alone, clipped.

    In units of the bound, so in [-1, 1]. The mean is clipped and not each row: where one row in twenty is positive, a
    better head gains much on it and loses a little on the others. The head must be on trial.
    """
    production, trial = model.production[head], model.trial[head]
    weights = sum(ripe.weight for ripe in rows)
    total = sum(ripe.weight * (loss(head, trial, ripe) - loss(head, production, ripe)) for ripe in rows)
    difference = array("f", [max(-1.0, min(1.0, total / weights / BOUND))])[0]  # as the wire rounds it
    return Score(model.trials[head], difference)


def loss(head: str, weights: Sequence[float], ripe: Ripe) -> float:
    """The log loss in nats of a chance, the absolute error in spreads of a time."""
    found = margin(weights, ripe.row.indices, ripe.row.values)
    if PACES[head].loss != "log_loss":
        return abs(ripe.label - found)
    wrong = -found if ripe.label else found
    return max(0.0, wrong) + log1p(exp(-abs(wrong)))
