"""Aggregate the deltas of many projects into the next vector of a task. Pure: no order of arrival, clock or disk.

Buffered asynchronous aggregation after FedBuff: Nguyen et al., AISTATS 2022; with the geometric median in place of the
mean: Pillutla et al., "Robust aggregation for federated learning", IEEE TSP 2022.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from operator import itemgetter
from statistics import median
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from fedstep.schema.schema import Schema
from fedstep.server.aggregation.vectors import (
    Contributor,
    Contributors,
    DeltaBatch,
    FloatArray,
    Floats,
    GroupIndex,
    Indices,
    norm,
)

MIN_PROJECTS = 3  # for a median over projects to say something: of two none is nearer to their centre
ROUNDING = 1e-9  # relative excess of the norm of a delta that was shrunk to its bound
WEISZFELD_STEPS = 8  # more change the factors by less than a hundredth
SETTLED = 0.003  # a relative change of no factor above this ends the steps; most batches need one to three
ALIKE = 0.01  # of the longest delta: a smaller distance is none, and may be rounding
MEDIAN_FACTOR = 3.0  # a coordinate may be this many times its median over the projects


class OwnRules(TypedDict, total=False):
    """What a task has other than the default of `AggregationRules`."""

    rate: float
    longer: float
    near: float
    together: float
    window: int


OWN_RULES: Mapping[str, OwnRules] = {
    # Few examples from mixed projects: higher rates made durations worse. Batches with a rare outcome are longer than
    # others and far from them; a duration has none, so that its bounds are narrower (docs/decisions/0116).
    "build-duration": {"rate": 0.3, "longer": 2.0, "near": 1.0},
    "build-failure": {"window": 1000},  # constant rates leave noise in the vectors (docs/decisions/0090)
    "flaky": {"together": 10.0},  # long deltas: the sum of two hundred projects went too far (docs/decisions/0023)
}


@dataclass(frozen=True, slots=True)
class AggregationRules:
    """How an aggregation moves one task.

    `clip` bounds the L2 norm of each project's part, `rate` multiplies the summed step, and `decay` is the part of the
    distance to `start` (empty: to zero) that each aggregation takes back. The projects of one owner count no more than
    `projects_per_owner` projects. With `MIN_PROJECTS` or more, no delta is longer than `longer` times the median over
    the projects, and no coordinate takes more than the part `single` of the bound, unless most projects move it. The
    deltas within `near` times the median distance from their geometric median count alike, and others less. The
    step is at most `together` times the mean of the projects' parts. What goes on trial is the mean of the vectors of
    about the last `window` aggregations.
    """

    clip: float
    rate: float = 1.0
    decay: float = 0.0005
    projects_per_owner: float = 4.0
    longer: float = 3.0
    single: float = 0.1
    near: float = 2.0
    together: float = inf
    window: int = 1
    start: tuple[float, ...] = ()


class TaskDelta(NamedTuple):  # replays make thousands, and a frozen dataclass takes five times as long to make
    """One project's delta for one task; the other fields are those of `Contributor`."""

    id: str
    project: str
    staleness: int
    delta: FloatArray
    owner: str = ""

    @property
    def contributor(self) -> Contributor:
        """Return the origin of the delta."""
        return Contributor(self.staleness, self.owner, self.project, self.id)


class Usual(NamedTuple):
    """How long the deltas of a task usually are.

    The projects of one aggregation are few, so that now and then most of them attack; of all sources most do not.
    `rows` has the newest deltas by source, of which each begins at one of `starts`; `weights` how far each counts.
    """

    rows: FloatArray = np.empty((0, 0), np.float32)
    starts: Indices = np.empty(0, np.intp)
    weights: Floats = np.empty(0)

    def norm(self) -> float:
        """Return the median over sources of the mean norm; infinity where too few sources are known."""
        if len(self.starts) < MIN_PROJECTS:
            return inf
        return float(self._median(np.sqrt(np.vecdot(self.rows, self.rows))))

    def columns(self, columns: Indices) -> NDArray[np.floating]:
        """Return the median over sources of the mean size of some coordinates; infinity where too few are known."""
        if len(self.starts) < MIN_PROJECTS:
            return np.full(len(columns), inf)
        return self._median(np.abs(self.rows[:, columns]))

    def _median(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        counts = np.diff(np.append(self.starts, len(self.rows))).reshape(-1, *(1,) * (values.ndim - 1))
        return weighted_median(np.add.reduceat(values, self.starts) / counts, self.weights)


def weighted_median(values: NDArray[np.floating], weights: Floats) -> NDArray[np.floating]:
    """Return the median of the values, of each column where there are columns; of two in the middle the lower one."""
    order = np.argsort(values, axis=0)
    middle = (weights[order].cumsum(axis=0) >= weights.sum() / 2).argmax(axis=0)
    medians: NDArray[np.floating] = np.take_along_axis(values, order, axis=0)[middle, *map(np.arange, values.shape[1:])]
    return medians


UNKNOWN = Usual()


def default_rules(schema: Schema) -> Mapping[str, AggregationRules]:
    """Return the default rules of each task of the schema."""
    return {
        name: AggregationRules(task.clip, start=tuple(task.start()), **OWN_RULES.get(name, OwnRules()))
        for name, task in schema.tasks.items()
    }


def aggregate(
    task: FloatArray, deltas: Sequence[TaskDelta], rules: AggregationRules, usual: Usual = UNKNOWN
) -> FloatArray:
    """Return the vector of a task after one aggregation; the order of the deltas does not matter."""
    ordered = sorted(((task_delta.contributor, task_delta.delta) for task_delta in deltas), key=itemgetter(0))
    contributors = Contributors.of([contributor for contributor, _ in ordered])
    return aggregate_task(task, {index: delta for index, (_, delta) in enumerate(ordered)}, contributors, rules, usual)


def aggregate_task(
    task: FloatArray,
    deltas: Mapping[int, FloatArray],
    everyone: Contributors,
    rules: AggregationRules,
    usual: Usual = UNKNOWN,
) -> FloatArray:
    """Return the vector of a task after one aggregation of its deltas; the same vector where there are none.

    `deltas` maps ascending indices into `everyone` to float32 deltas of the task's size. Each delta is clipped, and so
    is the weighted sum of each project's deltas, so that many updates move the task no further than one. The same holds
    for the projects of one owner, with a wider bound. No delta is much longer than is `usual`.
    """
    if not deltas:
        return task
    contributors = everyone.select(list(deltas))
    projects = GroupIndex.of(contributors.projects)
    weights = contributors.staleness_weights
    batch = DeltaBatch.of(list(deltas.values()), weights)
    bound = min(compute_bound(batch.norms, projects, rules), rules.longer * usual.norm())

    moving = batch.norms > 0.0  # a project that sends zeros does not slow down the others
    batch = batch.clip_norms(bound)
    if len(projects.starts) >= MIN_PROJECTS:
        batch = clip_coordinates(batch, projects, rules.single * bound, usual)

    shares, owners = GroupIndex.of(contributors.shares), GroupIndex.of(contributors.owners)
    most = owner_limit(contributors, rules.projects_per_owner)
    if len(projects.starts) >= MIN_PROJECTS:
        weights = weights * agreement(batch, even_out(weights, shares, owners, most) * moving, rules.near)
    weights = cap_repeats(batch, weights, shares, 1.0)
    weights = cap_repeats(batch, weights, owners, most)
    weights = cap_groups(batch, weights, shares, bound)
    weights = cap_groups(batch, weights, owners, most * bound)

    step = batch.weighted_sum(weights)
    senders = zip(contributors.owners[moving].tolist(), contributors.shares[moving].tolist(), strict=True)
    return apply_step(task, step, scale_rate(rules, senders))


def compute_bound(norms: Floats, projects: GroupIndex, rules: AggregationRules) -> float:
    """Return the L2 bound of each project's part: `rules.clip`, or less where most deltas are short.

    The constant leaves room for the longest honest delta, and an attacker would always fill it. A median over projects
    stays honest while fewer than half of them attack.
    """
    longest = projects.largest(norms)
    middle = median(longest.tolist()) if len(longest) >= MIN_PROJECTS else 0.0
    return min(rules.clip, rules.longer * middle) if middle else rules.clip


def clip_coordinates(batch: DeltaBatch, projects: GroupIndex, limit: float, usual: Usual = UNKNOWN) -> DeltaBatch:
    """Return the batch with coordinates clipped at `limit`, or at `MEDIAN_FACTOR` times their median over projects.

    The median is that of this batch, or of what is `usual` where that is less.
    Without this, a delta spent on one rare word would move that word by a whole bound.
    """
    rows, columns, values = batch.above(limit)
    if not len(rows):
        return batch
    limits = np.full(batch.size, limit)
    candidates = np.unique(columns)
    sizes = np.abs(batch.columns(candidates))
    # Only these can have a median above limit / MEDIAN_FACTOR: medians of all candidates would cost ten times as much.
    frequent = 2 * np.count_nonzero(sizes > limit / MEDIAN_FACTOR, axis=0) >= len(projects.starts)
    if frequent.any():
        medians = np.median(projects.largest(sizes[:, frequent]), axis=0)
        medians = np.minimum(medians, usual.columns(candidates[frequent]))
        limits[candidates[frequent]] = np.maximum(limit, MEDIAN_FACTOR * medians)
    clipped = np.clip(values, -limits[columns], limits[columns])
    return batch.replace(rows, columns, clipped)


def owner_limit(contributors: Contributors, projects_per_owner: float) -> float:
    """Return how many projects an owner's projects count for: with several owners, at most a fifth of all."""
    pairs = np.unique(np.stack([contributors.owners, contributors.shares]), axis=1)
    counts = np.minimum(np.bincount(pairs[0]), projects_per_owner)
    if np.count_nonzero(counts) < 2:
        return projects_per_owner
    return float(min(projects_per_owner, max(1.0, (counts.sum() - counts.max()) / 4)))


def even_out(weights: Floats, shares: GroupIndex, owners: GroupIndex, most: float) -> Floats:
    """Return the weights, lowered so that those of a project sum to at most 1, and those of an owner to `most`."""
    evened = weights.copy()
    for groups, limit in ((shares, 1.0), (owners, most)):
        for rows in groups.above(evened, limit):
            evened[rows] *= limit / evened[rows].sum()
    return evened


def agreement(batch: DeltaBatch, weights: Floats, near: float) -> Floats:
    """Return a factor for each delta: low where it is far from the geometric median of all; their mean is 1.

    The factors are those of Weiszfeld's algorithm, smoothed at `near` times the median distance: nearer deltas have
    the same factor, because those of inner-product manipulation are short and nearest of all.
    """
    factors, squares, total = np.ones(len(weights)), batch.norms**2, weights.sum()
    least = ALIKE * batch.norms.max()
    for _ in range(WEISZFELD_STEPS if total and least else 0):
        centre = batch.weighted_sum(weights * factors / total)
        distances = np.sqrt(np.maximum(0.0, squares - 2.0 * batch.dot(centre) + norm(centre) ** 2))
        smoothing = max(least, near * float(np.median(distances[weights > 0.0])))
        before, factors = factors, 1.0 / np.maximum(smoothing, distances)
        factors *= total / (weights @ factors)
        if np.abs(factors - before).max() <= SETTLED * before.min():
            break
    return factors


def cap_repeats(batch: DeltaBatch, weights: Floats, groups: GroupIndex, most: float) -> Floats:
    """Return the weights, lowered so that the sum of each group is at most `most` times as long as its longest delta.

    Many deltas of a project so move the task no further than one of them.
    """
    capped = weights.copy()
    for rows in groups.repeated():
        longest = most * float((weights[rows] * batch.norms[rows]).max())
        length = norm(batch.select(rows).weighted_sum(weights[rows]))
        capped[rows] *= min(1.0, longest / length if length else 1.0)
    return capped


def cap_groups(batch: DeltaBatch, weights: Floats, groups: GroupIndex, limit: float) -> Floats:
    """Return the weights, lowered so that the weighted sum of no group of rows has an L2 norm above `limit`."""
    capped = weights.copy()
    for rows in groups.above(weights * batch.norms, limit * (1.0 + ROUNDING)):
        length = norm(batch.select(rows).weighted_sum(weights[rows]))
        capped[rows] *= min(1.0, limit / length if length else 1.0)
    return capped


def scale_rate(rules: AggregationRules, senders: Iterable[tuple[Hashable, Hashable]]) -> AggregationRules:
    """Return the rules at the rate for a step made by these pairs of owner and project (docs/decisions/0023).

    Projects that learned from the same version say much the same, and the sum of many goes too far. An owner's projects
    count as far as `projects_per_owner`.
    """
    if rules.together == inf:
        return rules
    owners = Counter(owner for owner, _ in set(senders))
    projects = sum(min(count, rules.projects_per_owner) for count in owners.values())
    return replace(rules, rate=min(rules.rate, rules.together / max(1.0, projects)))


def apply_step(task: FloatArray, step: NDArray[np.floating], rules: AggregationRules) -> FloatArray:
    """Return the vector of a task after a summed step at the rate of the rules, less its decay."""
    after = np.float32(1.0 - rules.decay) * task
    if rules.start:
        after += rules.decay * np.array(rules.start)
    after += rules.rate * step
    return after


def update_mean(mean: FloatArray, task: FloatArray, version: int, window: int) -> FloatArray:
    """Return the mean of the newest vectors of a task after one more, that of `version`.

    Polynomial-decay averaging: Shamir and Zhang, "Stochastic gradient descent for non-smooth optimization", ICML 2013.
    It covers about the last eighth of all versions, so that the start is soon forgotten, and at most `window`.
    """
    if window <= 1:
        return task
    moved: FloatArray = mean + np.float32(max(8.0 / (max(1, version) + 7.0), 1.0 / window)) * (task - mean)
    return moved
