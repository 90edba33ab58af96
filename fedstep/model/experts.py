"""Aggregation of several estimates of one duration: each counts by how well it did in this job's last builds.

Each estimate is an expert. The experts are the task's linear model, the running estimate, and medians that are features
of the task; the linear model starts with most of the weight that is always at work. Herbster and Warmuth, "Tracking the
best expert", 1998: after each build the weights fall exponentially in the loss, and a fixed share of them returns to
where they started, so that an expert that was useless for a hundred builds is back within a few when the job changes.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from math import exp, log

from fedstep.features.build_features import expand, quantile
from fedstep.schema.schema import SparseVector, schema

# Weights of the experts before any build; tuned on ten recorded projects, confirmed on nine. Four fifths are those of
# the past moved to a changed level, which speaks only where one changed: there it decides from the first build on.
STARTING_WEIGHTS = {
    "model": 0.096,
    "estimate": 0.02,
    "same-kinds": 0.02,
    "same-running": 0.02,
    "same-kinds-running": 0.02,
    "newest": 0.006,
    "last-3": 0.006,
    "last-20": 0.006,
    "last-branch": 0.006,
    "moved": 0.8,
}
RATE = 0.4  # nats a weight loses per spread of error
SHARE = 0.01  # of the weights that returns to the start after each build
WORST_LOSS = 4.0  # spreads

LogWeights = tuple[float, ...]
START: LogWeights = tuple(map(log, STARTING_WEIGHTS.values()))


def combine(weights: LogWeights, row: SparseVector, margin: float) -> float:
    """Return the departure from the running estimate that the experts expect, in spreads: their weighted median."""
    said = zip(_departures(row, margin), weights, strict=True)
    ordered = sorted((departure, exp(weight)) for departure, weight in said if departure is not None)
    return quantile([departure for departure, _ in ordered], [weight for _, weight in ordered], 0.5)


def observe_departure(weights: LogWeights, row: SparseVector, margin: float, departure: float) -> LogWeights:
    """Return the weights after a build whose duration is known; `departure` and `margin` are in spreads.

    An expert that said nothing counts as having lost what the others did on average (specialists: Freund et al.,
    "Using and combining predictors that specialize", 1997).
    """
    losses = [
        None if expected is None else min(abs(departure - expected), WORST_LOSS)
        for expected in _departures(row, margin)
    ]
    awake = [(exp(weight), loss) for weight, loss in zip(weights, losses, strict=True) if loss is not None]
    average = sum(weight * loss for weight, loss in awake) / sum(weight for weight, _ in awake)
    scores = [weight - RATE * (average if loss is None else loss) for weight, loss in zip(weights, losses, strict=True)]
    best = max(scores)
    shares = [exp(score - best) for score in scores]
    total = sum(shares)
    starts = STARTING_WEIGHTS.values()
    return tuple(log((1 - SHARE) * share / total + SHARE * start) for share, start in zip(shares, starts, strict=True))


def _departures(row: SparseVector, margin: float) -> Sequence[float | None]:
    """Return what each expert expects; one without a build to go by expects what the running estimate does.

    The last one says nothing (None) where no level changed.
    """
    values = dict(zip(row.indices, row.values, strict=True))
    *medians, moved = (expand(values[index]) if index in values else None for index in _coordinates())
    return [margin, 0.0, *(0.0 if median is None else median for median in medians), moved]


@cache
def _coordinates() -> Sequence[int]:
    """Return the coordinate of each expert that is a feature of the task."""
    numbers: Mapping[str, int] = {name: number for number, name in enumerate(schema().tasks["build-duration"].names())}
    return [numbers[name] for name in STARTING_WEIGHTS if name in numbers]
