"""From one version to the next with differential privacy: all that leaves a fold follows from one noised sum.

The unit is a project: everything that it sent for this fold, all heads and votes together, is one vector of an L2 norm
of at most 1. Adjacent are two folds that differ in one such vector, which is zero in one of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from fedstep.federation.wire import Score
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.aggregation.vectors import staleness_weight
from fedstep.server.gate import Gate
from fedstep.server.gate_sums import Release
from fedstep.server.lineage import contributions
from fedstep.server.privacy import GRID, Below, Grid, Real, joined, noised_sum, quantised
from fedstep.server.records import Made, Moment, Stored
from fedstep.server.shared_sums import HeadSum, Standing, next_shared

__all__ = ["LIFE", "VOTE", "Noise", "next_private"]

LIFE = 0.5  # of a head's bound: what a project's contributions add up to; most are longer, and noise is in proportion
VOTE = 0.25  # in the vector: of a vote at the gate's reach, and of its being there; four heads' are 0.71 at most


@dataclass(frozen=True, slots=True)
class Noise:
    """Its standard deviation in units of a project's bound, where chance comes from, and that bound.

    `share` is what a delta may count in one release, in units of its head's bound.
    """

    multiplier: float
    below: Below
    share: float


def next_private(moment: Moment, rules: Mapping[str, AggregationRules], gate: Gate | None, noise: Noise) -> Made:
    """The next version. Whatever it says of the buffered updates it says of their noised sum."""
    heads = moment.current.head.vectors
    size = sum(map(len, heads.values())) + 2 * len(heads)
    vectors = (_vector(moment, of_one, rules, gate, noise.share) for of_one in _by_project(moment.buffered))
    sums = _apart(moment, noised_sum(map(quantised, vectors), size, noise.multiplier, noise.below), noise)
    noised = {name: sums[name].release for name in moment.current.trials}
    releases = {name: (*moment.noised.get(name, ()), release) for name, release in noised.items()}
    standing = Standing(moment.current, moment.number, releases, moment.spent, moment.refolded, moment.now)
    return replace(next_shared(standing, sums, rules, gate), noised=noised)


def _by_project(updates: Iterable[Stored]) -> Iterator[Sequence[Stored]]:
    """The updates of each project, by its identity where it has one; what another owner sends in its name is apart."""

    def whose(one: Stored) -> tuple[str, str]:
        return one.owner, one.project or one.update().project

    return (tuple(ours) for _, ours in groupby(sorted(updates, key=whose), key=whose))


def _vector(
    moment: Moment, updates: Sequence[Stored], rules: Mapping[str, AggregationRules], gate: Gate | None, share: float
) -> Real:
    """One project's vector, not yet rounded: each head in units of its share, then each head's vote.

    Votes are whole however long the deltas are: most are longer than their share, and would leave nothing of a vote.
    """
    heads = moment.current.head.vectors
    deltas = {name: np.zeros(len(vector)) for name, vector in heads.items()}
    votes = {name: np.zeros(2) for name in heads}
    for stored in updates:
        for name, one in contributions(stored, moment.current.head.version):
            deltas[name] += staleness_weight(one.staleness) / (share * rules[name].clip) * one.delta
        for name, score in stored.update().scores.items():
            votes[name] = _vote(moment, name, score, gate or Gate())
    return joined(np.concatenate([*deltas.values()]), np.concatenate([*votes.values()]))


def _vote(moment: Moment, name: str, score: Score, gate: Gate) -> Real:
    """That there is a vote, and what it says, drawn in to the reach; zeros for a trial that is over."""
    trial = moment.current.trials.get(name)
    if trial is None or trial.version != score.trial:
        return np.zeros(2)
    return VOTE * np.array([1.0, max(-1.0, min(1.0, score.difference / gate.reach))])


def _apart(moment: Moment, steps: Grid, noise: Noise) -> Mapping[str, HeadSum]:
    """What the noised vector says of each head."""
    heads, sums, start = moment.current.head.vectors, {}, 0
    votes = steps[-2 * len(heads) :].reshape(-1, 2) / (GRID * VOTE)
    variance = 2.0 * (noise.multiplier / VOTE) ** 2  # of the sum, and of the count at the utmost mean, which is 1
    for (name, vector), (count, total) in zip(heads.items(), votes, strict=True):
        found = steps[start : start + len(vector)]
        start += len(vector)
        release = Release(float(count), float(total), variance)
        sums[name] = HeadSum(found, noise.share / GRID, release)
    return sums
