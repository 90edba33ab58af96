"""Aggregate as the rules say, step by step in double precision: the oracle of `fedstep.server.aggregation`."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from statistics import median

import numpy as np
from numpy.typing import NDArray

from fedstep.server.aggregation.fedbuff import MEDIAN_FACTOR, MIN_PROJECTS, AggregationRules, Contribution
from fedstep.server.aggregation.vectors import FloatArray, staleness_weight

Real = NDArray[np.float64]


def aggregate_plainly(task: FloatArray, contributions: Sequence[Contribution], rules: AggregationRules) -> Real:
    """Return the vector of a task after one aggregation; needs at least one contribution."""
    deltas = [one.delta.astype(float) for one in contributions]
    projects = _indices([one.project for one in contributions])
    longest = [max(float(np.linalg.norm(deltas[row])) for row in rows) for rows in projects]
    bound = rules.clip
    if len(projects) >= MIN_PROJECTS and (middle := median(longest)):
        bound = min(bound, rules.longer * middle)
    moving = [row for row, delta in enumerate(deltas) if delta.any()]
    deltas = [_shrink(delta, bound) for delta in deltas]
    if len(projects) >= MIN_PROJECTS:
        sizes = [np.max([np.abs(deltas[row]) for row in rows], axis=0) for rows in projects]
        limits = np.maximum(rules.single * bound, MEDIAN_FACTOR * np.median(sizes, axis=0))
        deltas = [np.clip(delta, -limits, limits) for delta in deltas]
    deltas = [staleness_weight(one.staleness) * delta for one, delta in zip(contributions, deltas, strict=True)]
    owners = [one.owner or (one.project,) for one in contributions]
    shares = [(one.owner, one.project) for one in contributions]
    for groups, limit in ((shares, bound), (owners, rules.projects_per_owner * bound)):
        for rows in _indices(groups):
            total = np.sum([deltas[row] for row in rows], axis=0)
            length = float(np.linalg.norm(total))
            for row in rows:
                deltas[row] = deltas[row] * min(1.0, limit / length if length else 1.0)
    projects_of = defaultdict(set)
    for row in moving:
        projects_of[owners[row]].add(shares[row])
    count = sum(min(len(theirs), rules.projects_per_owner) for theirs in projects_of.values())
    rate = min(rules.rate, rules.together / max(1.0, count))
    start = np.array(rules.start or np.zeros(len(task)))
    after: Real = (1.0 - rules.decay) * task + rules.decay * start + rate * np.sum(deltas, axis=0)
    return after


def _shrink(vector: Real, bound: float) -> Real:
    length = float(np.linalg.norm(vector))
    return vector * min(1.0, bound / length if length else 1.0)


def _indices(names: Sequence[Hashable]) -> list[list[int]]:
    found: dict[Hashable, list[int]] = {}
    for row, name in enumerate(names):
        found.setdefault(name, []).append(row)
    return list(found.values())
