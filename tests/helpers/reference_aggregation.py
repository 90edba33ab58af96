"""Aggregate as the rules say, step by step in double precision: the oracle of `fedstep.server.aggregation`."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from statistics import median

import numpy as np
from numpy.typing import NDArray

from fedstep.server.aggregation.fedbuff import (
    ALIKE,
    MEDIAN_FACTOR,
    MIN_PROJECTS,
    SETTLED,
    WEISZFELD_STEPS,
    AggregationRules,
    TaskDelta,
)
from fedstep.server.aggregation.vectors import FloatArray, staleness_weight

Real = NDArray[np.float64]


def aggregate_plainly(task: FloatArray, task_deltas: Sequence[TaskDelta], rules: AggregationRules) -> Real:
    """Return the vector of a task after one aggregation; needs at least one contribution."""
    deltas = [one.delta.astype(float) for one in task_deltas]
    projects = _indices([one.project for one in task_deltas])
    longest = [max(float(np.linalg.norm(deltas[row])) for row in rows) for rows in projects]
    bound = rules.clip
    if len(projects) >= MIN_PROJECTS and (middle := median(longest)):
        bound = min(bound, rules.longer * middle)
    moving = [row for row, delta in enumerate(deltas) if delta.any()]
    deltas = [_shrink(delta, bound) for delta in deltas]
    lengths = [float(np.linalg.norm(delta)) for delta in deltas]  # the batch does not measure clipped coordinates again
    if len(projects) >= MIN_PROJECTS:
        sizes = [np.max([np.abs(deltas[row]) for row in rows], axis=0) for rows in projects]
        limits = np.maximum(rules.single * bound, MEDIAN_FACTOR * np.median(sizes, axis=0))
        deltas = [np.clip(delta, -limits, limits) for delta in deltas]
    weights = [staleness_weight(one.staleness) for one in task_deltas]
    clipped = deltas
    deltas = [weight * delta for weight, delta in zip(weights, deltas, strict=True)]
    owners = [one.owner or (one.project,) for one in task_deltas]
    shares = [(one.owner, one.project) for one in task_deltas]
    most = _owner_limit(owners, shares, rules.projects_per_owner)
    if len(projects) >= MIN_PROJECTS:
        moves = np.isin(np.arange(len(deltas)), moving)
        factors = _agreement(clipped, lengths, _even(weights, shares, owners, most) * moves)
        deltas = [factor * delta for factor, delta in zip(factors, deltas, strict=True)]
        lengths = [factor * length for factor, length in zip(factors, lengths, strict=True)]
    lengths = [weight * length for weight, length in zip(weights, lengths, strict=True)]
    for groups, count in ((shares, 1.0), (owners, most)):
        for rows in _indices(groups):
            if len(rows) > 1:
                shrunk = _shorten(deltas, rows, count * max(lengths[row] for row in rows))
                lengths = [length * (shrunk if row in rows else 1.0) for row, length in enumerate(lengths)]
    for groups, limit in ((shares, bound), (owners, most * bound)):
        for rows in _indices(groups):
            _shorten(deltas, rows, limit)
    projects_of = defaultdict(set)
    for row in moving:
        projects_of[owners[row]].add(shares[row])
    count = sum(min(len(theirs), rules.projects_per_owner) for theirs in projects_of.values())
    rate = min(rules.rate, rules.together / max(1.0, count))
    start = np.array(rules.start or np.zeros(len(task)))
    after: Real = (1.0 - rules.decay) * task + rules.decay * start + rate * np.sum(deltas, axis=0)
    return after


def _shorten(deltas: list[Real], rows: Sequence[int], limit: float) -> float:
    length = float(np.linalg.norm(np.sum([deltas[row] for row in rows], axis=0)))
    factor = min(1.0, limit / length if length else 1.0)
    for row in rows:
        deltas[row] = deltas[row] * factor
    return factor


def _owner_limit(owners: Sequence[Hashable], shares: Sequence[Hashable], most: float) -> float:
    counts = [min(most, len({shares[row] for row in rows})) for rows in _indices(owners)]
    return most if len(counts) < 2 else min(most, max(1.0, (sum(counts) - max(counts)) / 4))


def _even(weights: Sequence[float], shares: Sequence[Hashable], owners: Sequence[Hashable], most: float) -> Real:
    evened = np.array(weights)
    for groups, limit in ((shares, 1.0), (owners, most)):
        for rows in _indices(groups):
            evened[rows] *= min(1.0, limit / evened[rows].sum())
    return evened


def _agreement(deltas: Sequence[Real], lengths: Sequence[float], weights: Real) -> Real:
    """Return the factors of Weiszfeld's algorithm, smoothed at twice the median distance."""
    points, factors, least = np.array(deltas), np.ones(len(deltas)), ALIKE * max(lengths)
    for _ in range(WEISZFELD_STEPS if least and weights.sum() else 0):
        centre = (weights * factors / weights.sum()) @ points
        squares = np.array(lengths) ** 2 - 2.0 * points @ centre + centre @ centre
        distances = np.sqrt(np.maximum(0.0, squares))
        before = factors
        factors = 1.0 / np.maximum(max(least, 2.0 * float(np.median(distances[weights > 0.0]))), distances)
        factors *= weights.sum() / (weights @ factors)
        if np.abs(factors - before).max() <= SETTLED * before.min():
            break
    return factors


def _shrink(vector: Real, bound: float) -> Real:
    length = float(np.linalg.norm(vector))
    return vector * min(1.0, bound / length if length else 1.0)


def _indices(names: Sequence[Hashable]) -> list[list[int]]:
    found: dict[Hashable, list[int]] = {}
    for row, name in enumerate(names):
        found.setdefault(name, []).append(row)
    return list(found.values())
