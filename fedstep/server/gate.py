"""Decide whether a snapshot of a task goes into production. Pure; every decision is valid whenever it is taken.

An evaluation is what one update reports of one task: the mean clipped loss difference, trial less production, on
examples that nobody has learned from yet; in units of the task's bound, so in [-1, 1]. Evidence comes in two forms:
single evaluations, bounded by betting (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
betting", JRSS B 2024), and sums of them, with or without noise, bounded by a normal mixture (Howard et al.,
"Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of Statistics 2021).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from math import log, sqrt
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Outcome = Literal["open", "promoted", "rejected", "undecided"]
Array = NDArray[np.float64]
Bounds: TypeAlias = tuple[float, float, float]  # low and high confidence bounds of a mean, and a cautious mean

BETS = np.array(
    [0.95, 0.7, 0.5, 0.3, 0.15, 0.07]
)  # shares of the largest bet that cannot lose everything; mixed evenly
SECTIONS, NARROWINGS = 16, 4  # of the interval in which a bound is searched
ALWAYS_COUNTED = 3  # evaluations that count for each project whatever the others send
TUNED = 5.0  # the bound of sums is tightest at about twelve times this variance, and valid at any
COUNTED = 4.0  # standard deviations by which a noised count may be too low


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one update reports of one snapshot; a difference below 0 is an improvement on production."""

    project: str
    owner: str
    difference: float


@dataclass(frozen=True, slots=True)
class EvaluationSum:
    """The count and the sum of the evaluations that one aggregation brings, one per project.

    Each is clipped to the gate's reach and divided by it, so that it is in [-1, 1] and `total` in [-count, count].
    `noise_variance` is that of the noise in `total`, plus that of the noise in `count` where both have some.
    """

    count: float
    total: float
    noise_variance: float = 0.0


@dataclass(frozen=True, slots=True)
class ActiveCounts:
    """Numbers of distinct projects and owners that have sent an update lately."""

    projects: int
    owners: int


@dataclass(frozen=True, slots=True)
class LossEstimate:
    """How much worse a snapshot is than production, by its evidence, however dishonest projects evaluate.

    `low` and `high` are confidence bounds of the mean over the honest evaluations, `mean` is a cautious estimate of it.
    `evaluations` came, `counted` of them count, and `size` is compared with `Gate.most`. It is `sufficient` where
    enough distinct projects and owners evaluated, and `sole_project` where only one project is active.
    """

    evaluations: int
    counted: int
    size: int
    projects: int
    owners: int
    active: ActiveCounts
    mean: float
    low: float
    high: float
    sufficient: bool
    sole_project: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a trial and every figure that led to it.

    `low` and `high` bound how much worse the snapshot is for honest projects. `allowed` is how much worse it may be,
    `spent` the losses admitted so far, this promotion included.
    """

    outcome: Outcome
    evaluations: int
    counted: int
    projects: int
    owners: int
    active_projects: int
    active_owners: int
    mean: float
    low: float
    high: float
    allowed: float
    spent: float

    def figures(self) -> dict[str, float | int]:
        """Return every field but the outcome by name."""
        return {name: value for name, value in asdict(self).items() if name != "outcome"}


class Evidence(Protocol):
    """What is known of a snapshot on trial."""

    def estimate(self, gate: "Gate") -> LossEstimate:
        """Return how much worse the snapshot is than production."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The rules of a trial. Losses are in units of the task's bound.

    `margin`: how much worse production may become, over all promotions together. `wrong_promotion`, `wrong_rejection`:
    the error rates. `liars`: the share of evaluations that may be dishonest. `reach`: evaluations are clipped to it, so
    that no dishonest one weighs more. `most`: evaluations after which a trial ends. `alone`: evaluations after which
    the snapshot of a sole project is promoted. `voters`: distinct projects needed, where so many are active. `share`:
    the largest part of the evaluations that one project, or one owner, may have then.
    """

    margin: float = 0.15
    wrong_promotion: float = 0.01
    wrong_rejection: float = 0.01
    liars: float = 0.2
    reach: float = 0.2
    most: int = 200
    alone: int = 20
    voters: int = 5
    share: float = 0.25

    def decide(self, evidence: Evidence, spent: float = 0.0) -> Verdict:
        """Return the verdict on a trial, with `spent` of the margin used up before it.

        An "undecided" trial gives way to a newer snapshot; an "open" one continues.
        """
        estimate = evidence.estimate(self)
        allowed = max(0.0, self.margin - spent)
        outcome = self._outcome(estimate, allowed)
        return Verdict(
            outcome=outcome,
            evaluations=estimate.evaluations,
            counted=estimate.counted,
            projects=estimate.projects,
            owners=estimate.owners,
            active_projects=estimate.active.projects,
            active_owners=estimate.active.owners,
            mean=estimate.mean,
            low=estimate.low,
            high=estimate.high,
            allowed=allowed,
            spent=self._margin_after(spent, estimate) if outcome == "promoted" else spent,
        )

    def _outcome(self, estimate: LossEstimate, allowed: float) -> Outcome:
        if estimate.sufficient and estimate.low > 0.0:
            return "rejected"
        if estimate.sufficient and estimate.high <= allowed:
            return "promoted"
        if estimate.sole_project and estimate.counted >= self.alone:
            return "promoted"
        return "undecided" if estimate.size >= self.most else "open"

    def _margin_after(self, spent: float, estimate: LossEstimate) -> float:
        """Return the losses admitted once this snapshot is in production.

        The most that it may be worse is admitted. A proven improvement gives back half of its cautious mean (stopping
        as soon as it is proven overestimates it), and never more than was spent. A sole project admits nothing: no
        other project predicts with its production.
        """
        if estimate.sole_project:
            return spent
        loss = min(estimate.high, self.margin) if estimate.high > 0.0 else min(0.0, estimate.mean / 2)
        return max(0.0, spent + loss)


@dataclass(frozen=True, slots=True)
class UpdateEvaluations:
    """Evidence of single evaluations, in the order they came, with the numbers of active projects and owners."""

    evaluations: Sequence[Evaluation]
    active: ActiveCounts

    def estimate(self, gate: Gate) -> LossEstimate:
        """Return the estimate, bounded by betting."""
        counted = self.eligible(gate)
        projects, owners = len({one.project for one in counted}), len({one.owner for one in counted})
        sole = self.active.projects <= 1
        differences = np.array([one.difference for one in counted], np.float64)
        low, high, mean = _bound_mean(differences, 0.0 if sole else gate.liars, gate)
        return LossEstimate(
            evaluations=len(self.evaluations),
            counted=len(counted),
            size=len(self.evaluations),
            projects=projects,
            owners=owners,
            active=self.active,
            mean=mean,
            low=low,
            high=high,
            sufficient=projects >= min(gate.voters, self.active.projects)
            and owners >= min(gate.voters, self.active.owners),
            sole_project=sole,
        )

    def eligible(self, gate: Gate) -> tuple[Evaluation, ...]:
        """Return the evaluations that count: the first ones of each project and owner, up to its share of them."""
        fair = _cap_shares(self.evaluations, lambda one: one.project, self.active.projects, gate)
        return tuple(_cap_shares(fair, lambda one: one.owner, self.active.owners, gate))


@dataclass(frozen=True, slots=True)
class EvaluationSums:
    """Evidence of sums of evaluations, the oldest first; single projects are unknown, so that none can be capped.

    In its estimate `counted` is the number of evaluations without noise that would be worth as much, and `projects` and
    `owners` are the most evaluations of one sum.
    """

    sums: Sequence[EvaluationSum]

    def estimate(self, gate: Gate) -> LossEstimate:
        """Return the estimate, bounded by a normal mixture."""
        count, variance = sum(one.count for one in self.sums), _variance(self.sums)
        worth = max(0.0, count) ** 2 / variance if variance else 0.0
        distinct = max(0, round(max((one.count for one in self.sums), default=0.0)))
        low, high, mean = _bound_mean_of_sums(self.sums, count, variance, gate)
        return LossEstimate(
            evaluations=max(0, round(count)),
            counted=int(worth),
            size=int(worth),
            projects=distinct,
            owners=distinct,
            active=ActiveCounts(distinct, distinct),
            mean=mean,
            low=low,
            high=high,
            sufficient=distinct >= gate.voters,
        )


def upper_bound(values: Array, alpha: float) -> float:
    """Return a bound that the mean of values in [0, 1] exceeds at no time, except with a probability of `alpha`.

    It is the smallest mean against which a bettor, who wins when values are below it, has made 1/alpha of 1 (Ville).

    >>> upper_bound(np.array([]), 0.01)
    1.0
    >>> bool(upper_bound(np.full(100, 0.5), 0.01) < 0.6)
    True
    """
    below, above = (float(values.mean()), 1.0) if len(values) else (1.0, 1.0)
    for _ in range(NARROWINGS if below < 1.0 else 0):
        means = np.linspace(below, above, SECTIONS + 1)
        first = int(np.argmax(_wealth(values, means) >= -np.log(alpha)))  # against 1 every bettor is rich enough
        below, above = float(means[max(0, first - 1)]), float(means[first])
    return above


def _wealth(values: Array, means: Array) -> Array:
    """Return the logarithm of the bettor's wealth against each of these means; it grows with the mean."""
    room = np.maximum(1.0 - means, 1e-300)[:, None]
    odds = np.maximum(means[:, None] - values, -room) / room
    logs = np.log1p(BETS[:, None, None] * odds).sum(axis=2)
    return np.where(means >= 1.0, np.inf, np.logaddexp.reduce(logs, axis=0) - np.log(len(BETS)))


def _bound_mean(differences: Array, liars: float, gate: Gate) -> Bounds:
    """Return bounds for the mean of the honest evaluations, clipped, whatever a share `liars` of them says."""
    reach, share = gate.reach, 1.0 - liars
    scaled = (np.clip(differences, -reach, reach) + reach) / (2 * reach)
    high = 2 * reach * upper_bound(scaled, gate.wrong_promotion) - reach
    low = reach - 2 * reach * upper_bound(1.0 - scaled, gate.wrong_rejection)
    mean = 2 * reach * float(scaled.mean()) - reach if len(scaled) else 0.0
    return (low - liars * reach) / share, (high + liars * reach) / share, (mean + liars * reach) / share


def _cap_shares(
    evaluations: Iterable[Evaluation], key: Callable[[Evaluation], str], active: int, gate: Gate
) -> list[Evaluation]:
    """Return the first evaluations of each key, as many as keep every key within its share.

    Where fewer keys than `gate.voters` are active, a key may have any share.
    """
    evaluations = list(evaluations)
    counts = Counter(map(key, evaluations))
    if active < gate.voters or not counts:
        return evaluations
    most = max(counts.values())
    while most > ALWAYS_COUNTED and most > gate.share * sum(min(count, most) for count in counts.values()):
        most -= 1
    seen: Counter[str] = Counter()
    capped = []
    for evaluation in evaluations:
        seen[key(evaluation)] += 1
        if seen[key(evaluation)] <= most:
            capped.append(evaluation)
    return capped


def _variance(sums: Sequence[EvaluationSum]) -> float:
    """Return the variance of the sum of all evaluations: 1 for each of them, and the noise."""
    noise = sum(one.noise_variance for one in sums)
    return noise + max(0.0, sum(one.count for one in sums) + COUNTED * sqrt(noise))


def _bound_mean_of_sums(sums: Sequence[EvaluationSum], count: float, variance: float, gate: Gate) -> Bounds:
    """Return bounds for the mean of the honest evaluations, whatever a share `gate.liars` of them says."""
    dishonest, share = gate.liars * gate.reach, 1.0 - gate.liars
    if count <= 0.0:
        return (-gate.reach - dishonest) / share, (gate.reach + dishonest) / share, dishonest / share
    total = sum(one.total for one in sums)
    tuned = TUNED + sums[0].noise_variance  # known before the sums are: their values must not choose it
    low = (total - _deviation(variance, tuned, gate.wrong_rejection)) / count
    high = (total + _deviation(variance, tuned, gate.wrong_promotion)) / count
    low, high, mean = (gate.reach * max(-1.0, min(1.0, value)) for value in (low, high, total / count))
    return (low - dishonest) / share, (high + dishonest) / share, (mean + dishonest) / share


def _deviation(variance: float, tuned: float, alpha: float) -> float:
    """Return how far the sum is above its expectation at no time, except with a probability of `alpha`."""
    wide = variance + tuned
    return sqrt(2.0 * wide * log(sqrt(wide / tuned) / (2.0 * alpha) + 1.0))
