"""From one version to the next with differential privacy: all that leaves a fold follows from one noised sum.

The unit is a project: everything that it sent for this fold, all tasks and votes together, is one vector of an L2 norm
of at most 1. Adjacent are two folds that differ in one such vector, which is zero in one of them.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import numpy as np

from fedstep.errors import UsageError
from fedstep.federation.messages import TrialScore
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.aggregation.inputs import AggregationInput, AggregationResult, StoredUpdate
from fedstep.server.aggregation.policy import BufferPolicy
from fedstep.server.aggregation.step import contributions, next_version
from fedstep.server.aggregation.vectors import staleness_weight
from fedstep.server.dp.accounting import PrivacyBudget, budget_of
from fedstep.server.dp.budget import FREE, BudgetPolicy
from fedstep.server.dp.mechanism import GRID, Below, Grid, Real, clip_and_concatenate, noised_sum, quantised
from fedstep.server.gate import EvaluationSum, Gate
from fedstep.server.secagg.sums import ModelState, TaskSum, next_shared
from fedstep.server.settings import Settings

LIFE = 0.5  # of a task's bound: what a project's contributions add up to; most are longer, and noise is in proportion
VOTE = 0.25  # in the vector: of a vote at the gate's reach, and of its being there; four tasks' are 0.71 at most


@dataclass(frozen=True, slots=True)
class GaussianNoise:
    """Its standard deviation in units of a project's bound, where chance comes from, and that bound.

    `share` is what a delta may count in one release, in units of its task's bound.
    """

    multiplier: float
    below: Below
    share: float


def next_private(
    moment: AggregationInput, rules: Mapping[str, AggregationRules], gate: Gate | None, noise: GaussianNoise
) -> AggregationResult:
    """The next version. Whatever it says of the buffered updates it says of their noised sum."""
    tasks = moment.current.candidate.vectors
    size = sum(map(len, tasks.values())) + 2 * len(tasks)
    vectors = (_vector(moment, of_one, rules, gate, noise.share) for of_one in _by_project(moment.buffered))
    sums = _apart(moment, noised_sum(map(quantised, vectors), size, noise.multiplier, noise.below), noise)
    noised = {name: sums[name].release for name in moment.current.trials}
    releases = {name: (*moment.noised.get(name, ()), release) for name, release in noised.items()}
    standing = ModelState(moment.current, moment.number, releases, moment.spent, moment.refolded, moment.now)
    return replace(next_shared(standing, sums, rules, gate), noised=noised)


def _by_project(updates: Iterable[StoredUpdate]) -> Iterator[Sequence[StoredUpdate]]:
    """The updates of each project, by its identity where it has one; what another owner sends in its name is apart."""

    def whose(one: StoredUpdate) -> tuple[str, str]:
        return one.owner, one.project or one.update().project

    return (tuple(ours) for _, ours in groupby(sorted(updates, key=whose), key=whose))


def _vector(
    moment: AggregationInput,
    updates: Sequence[StoredUpdate],
    rules: Mapping[str, AggregationRules],
    gate: Gate | None,
    share: float,
) -> Real:
    """One project's vector, not yet rounded: each task in units of its share, then each task's vote.

    Votes are whole however long the deltas are: most are longer than their share, and would leave nothing of a vote.
    """
    tasks = moment.current.candidate.vectors
    deltas = {name: np.zeros(len(vector)) for name, vector in tasks.items()}
    votes = {name: np.zeros(2) for name in tasks}
    for stored in updates:
        for name, one in contributions(stored, moment.current.candidate.version):
            deltas[name] += staleness_weight(one.staleness) / (share * rules[name].clip) * one.delta
        for name, score in stored.update().scores.items():
            votes[name] = _vote(moment, name, score, gate or Gate())
    return clip_and_concatenate(np.concatenate([*deltas.values()]), np.concatenate([*votes.values()]))


def _vote(moment: AggregationInput, name: str, score: TrialScore, gate: Gate) -> Real:
    """That there is a vote, and what it says, drawn in to the reach; zeros for a trial that is over."""
    trial = moment.current.trials.get(name)
    if trial is None or trial.version != score.trial:
        return np.zeros(2)
    return VOTE * np.array([1.0, max(-1.0, min(1.0, score.difference / gate.reach))])


def _apart(moment: AggregationInput, steps: Grid, noise: GaussianNoise) -> Mapping[str, TaskSum]:
    """What the noised vector says of each task."""
    tasks, sums, start = moment.current.candidate.vectors, {}, 0
    votes = steps[-2 * len(tasks) :].reshape(-1, 2) / (GRID * VOTE)
    variance = 2.0 * (noise.multiplier / VOTE) ** 2  # of the sum, and of the count at the utmost mean, which is 1
    for (name, vector), (count, total) in zip(tasks.items(), votes, strict=True):
        found = steps[start : start + len(vector)]
        start += len(vector)
        release = EvaluationSum(float(count), float(total), variance)
        sums[name] = TaskSum(found, noise.share / GRID, release)
    return sums


DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class AggregationMode:
    """How it folds and when, and what it counts; `budget` is None where nothing is promised."""

    step: Callable[[AggregationInput], AggregationResult]
    folding: BufferPolicy
    purse: BudgetPolicy = FREE
    budget: PrivacyBudget | None = None


def promised(settings: Settings, rules: Mapping[str, AggregationRules]) -> AggregationMode:
    """What these settings ask for. Raises UsageError for a promise that cannot be kept, MissingExtra."""
    if not settings.promise.releases:
        return AggregationMode(partial(next_version, rules=rules, gate=settings.gate), settings.folding)
    if settings.role != "alone":
        raise UsageError("shares and --privacy-epsilon do not go together", "Leave out one of them.")
    budget = budget_of(settings.promise)
    purse = BudgetPolicy(budget.cost, budget.most, settings.promise.days * DAY)
    noise = GaussianNoise(budget.multiplier, secrets.randbelow, LIFE / settings.promise.releases)
    step = partial(next_private, rules=rules, gate=settings.gate, noise=noise)
    return AggregationMode(step, replace(settings.folding, period=purse.seconds), purse, budget)
