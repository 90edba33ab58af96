"""Aggregation of several estimates of one duration: each counts by how well it did in this job's last builds.

Each estimate is an expert. The experts are the task's linear model, the running estimate, and medians that are features
of the task; the linear model starts with most of the weight that is always at work. Herbster and Warmuth, "Tracking the
best expert", 1998: after each build the weights fall exponentially in the loss, and a fixed share of them returns to
where they started, so that an expert that was useless for a hundred builds is back within a few when the job changes.

The past moved to a changed level speaks only where one changed. It is weighed against all others together, and only in
builds where it spoke: what a job's false changes cost is remembered until its next change.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from math import exp, log

from fedstep.features.build_features import expand, quantile
from fedstep.schema.schema import SparseVector, schema

# Weights of the experts before any build; tuned on ten recorded projects, confirmed on nine.
STARTING_WEIGHTS = {
    "model": 0.048,
    "estimate": 0.01,
    "same-kinds": 0.01,
    "same-running": 0.01,
    "same-kinds-running": 0.01,
    "newest": 0.003,
    "last-3": 0.003,
    "last-20": 0.003,
    "last-branch": 0.003,
    "moved": 0.9,  # decides from the first build on
}
RATE = 0.4  # nats a weight loses per spread of error
SHARE = 0.01  # of the weights that returns to the start after each build
WORST_LOSS = 4.0  # spreads

LogWeights = tuple[float, ...]
START: LogWeights = tuple(map(log, STARTING_WEIGHTS.values()))


def combine(weights: LogWeights, row: SparseVector, margin: float) -> float:
    """Return the departure from the running estimate that the experts expect, in spreads: their weighted median."""
    departures, moved = _departures(row, margin)
    estimates = departures if moved is None else [*departures, moved]
    # the moved past is the last: its weight is left where it says nothing
    ordered = sorted((departure, exp(weight)) for departure, weight in zip(estimates, weights, strict=False))
    return quantile([departure for departure, _ in ordered], [weight for _, weight in ordered], 0.5)


def observe_departure(weights: LogWeights, row: SparseVector, margin: float, departure: float) -> LogWeights:
    """Return the weights after a build whose duration is known; `departure` and `margin` are in spreads.

    Between the moved past and the others nothing changes where it said nothing (specialists: Freund et al., "Using and
    combining predictors that specialize", 1997).
    """
    expected, expected_moved = _departures(row, margin)
    losses = [_loss(departure, expectation) for expectation in expected]
    *others, moved = map(exp, weights)
    *starts, start = STARTING_WEIGHTS.values()
    shares, total = _fixed_share(others, losses, starts), sum(others)
    if expected_moved is not None:
        average = sum(weight * loss for weight, loss in zip(others, losses, strict=True)) / total
        both = (average, _loss(departure, expected_moved))
        total, moved = _fixed_share((total, moved), both, (1 - start, start))
    return tuple(map(log, (*(share * total for share in shares), moved)))


def _loss(departure: float, expected: float) -> float:
    return min(abs(departure - expected), WORST_LOSS)


def _fixed_share(weights: Sequence[float], losses: Sequence[float], starts: Sequence[float]) -> Sequence[float]:
    """Return the weights after these losses; their sum is 1."""
    best = min(losses)
    left = [weight * exp(RATE * (best - loss)) for weight, loss in zip(weights, losses, strict=True)]
    scale, start_scale = (1 - SHARE) / sum(left), SHARE / sum(starts)
    return [scale * weight + start_scale * start for weight, start in zip(left, starts, strict=True)]


def _departures(row: SparseVector, margin: float) -> tuple[Sequence[float], float | None]:
    """Return what each expert expects, and what the moved past does, None where no level changed.

    An expert without a build to go by expects what the running estimate does.
    """
    values = dict(zip(row.indices, row.values, strict=True))
    *medians, moved = (expand(values[index]) if index in values else None for index in _coordinates())
    return [margin, 0.0, *(0.0 if median is None else median for median in medians)], moved


@cache
def _coordinates() -> Sequence[int]:
    """Return the coordinate of each expert that is a feature of the task."""
    numbers: Mapping[str, int] = {name: index for index, name in enumerate(schema().tasks["build-duration"].names())}
    return [numbers[name] for name in STARTING_WEIGHTS if name in numbers]
