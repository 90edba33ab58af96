"""Decide whether the version of a task on trial becomes production. Pure; a decision is valid whenever it is taken.

An evaluation is what one update reports of one task: the mean loss difference, trial less production, on examples that
neither or both have learned; in units of the task's bound, so in [-1, 1]. Evidence comes in two forms. Of single
evaluations the mean of each voter counts, and of the voters the trimmed mean (Yuen, "The two-sample trimmed t",
Biometrika 1974), within the boundary of a test that ends after some evaluations (Wang and Tsiatis, "Approximately
optimal one-parameter boundaries for group sequential trials", Biometrics 1987). A version is promoted only as a proven
improvement. Sums of evaluations, with or without noise, are bounded by a normal mixture (Howard et al., "Time-uniform,
nonparametric, nonasymptotic confidence sequences", Annals of Statistics 2021), and a version may be worse by a margin
(docs/decisions/0055, 0087, 0093, 0120).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf, log, sqrt
from statistics import NormalDist, fmean, median
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Outcome = Literal["open", "promoted", "rejected", "undecided"]
Array = NDArray[np.float64]
Bounds: TypeAlias = tuple[float, float, float]  # low and high confidence bounds of a mean, and a cautious mean

NATS = 0.1  # per unit of an evaluation (`federation.update_builder.SCORE_BOUND`); spreads for a duration
FEW_VOTERS = 5  # fewer are judged one by one: a trimmed mean needs three in its middle
EARLIEST = 0.05  # the part of a trial at which the boundary begins
SPENT = 0.455  # of an error rate is left to one look, where all looks from `EARLIEST` on have it together
TRIMMED = 1.15  # times the boundary: three tenths cut off at each side leave few voters, and Yuen's test too narrow
HOPELESS = 0.25  # of the way to the boundary: a version that is not so far after `HOPE` of a trial gives way,
CONDEMNED = 0.5  # unless it is so far on the way to its rejection
HOPE = 0.4
TUNED = 5.0  # the bound of sums is tightest at about twelve times this variance, and valid at any
COUNTED = 4.0  # standard deviations by which a noised count may be too low


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one update reports of the version on trial; a difference below 0 is an improvement on production."""

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
    """Numbers of distinct projects and owners that sent an update lately, or took part in a recent promotion."""

    projects: int
    owners: int


@dataclass(frozen=True, slots=True)
class LossEstimate:
    """How much worse the version on trial is than production, by its evidence, however dishonest projects evaluate.

    `low` and `high` are confidence bounds of the mean over the honest evaluations, `mean` is an estimate of it, and
    `worst` is the bound where as many voters as the gate allows for lie in its favour. `evaluations` came, `counted` of
    them count, and `size` is compared with `Gate.most`. It is `sufficient` where enough distinct projects and owners
    evaluated, and `sole_project` where only one is known. With `needs_improvement` no margin is granted.
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
    worst: float
    sufficient: bool
    sole_project: bool = False
    needs_improvement: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a trial and every figure that led to it.

    `low` and `high` bound how much worse the version is for honest projects. `allowed` is how much worse it may be,
    `spent` the losses admitted so far, this promotion included. `worst` is the bound where as many voters as the gate
    allows for lie in its favour, and `admitted` the loss that this promotion may so admit, in nats or spreads.
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
    worst: float
    allowed: float
    spent: float
    admitted: float

    def figures(self) -> dict[str, float | int]:
        """Return every field but the outcome by name."""
        return {name: value for name, value in asdict(self).items() if name != "outcome"}


class Evidence(Protocol):
    """What is known of the version on trial."""

    def estimate(self, gate: "Gate") -> LossEstimate:
        """Return how much worse the version on trial is than production."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The rules of a trial. Losses are in units of the task's bound.

    `wrong_promotion`, `wrong_rejection`: the error rates; `first_wrong_promotion` is that of the first promotion,
    which replaces the model that all promises are relative to (docs/decisions/0120). `liars`: the share of voters that
    may be dishonest. `distance`: the aggregations that production and the version on trial are apart at least,
    `first_distance` before the first promotion. `most`: evaluations after which a trial ends. `alone`: those after
    which the version of a sole project is promoted. `voters`: distinct projects and owners needed, where so many are
    known. For sums alone, which do not show who evaluated: `margin` is how much worse production may become over all
    promotions together, `sum_liars` the share of evaluations that may be dishonest, `reach` what each evaluation is
    clipped to, and `sum_most`, `sum_distance` and `sum_wrong_promotion` are as those of single ones.
    """

    wrong_promotion: float = 0.05
    first_wrong_promotion: float = 0.02
    wrong_rejection: float = 0.01
    liars: float = 0.3
    distance: int = 3
    first_distance: int = 10
    most: int = 50
    alone: int = 20
    voters: int = 5
    margin: float = 0.15
    sum_liars: float = 0.2
    reach: float = 0.2
    sum_most: int = 200
    sum_distance: int = 5
    sum_wrong_promotion: float = 0.01

    def decide(self, evidence: Evidence, spent: float = 0.0) -> Verdict:
        """Return the verdict on a trial, with `spent` of the margin used up before it.

        An "undecided" trial gives way to that of a newer version; an "open" one continues.
        """
        estimate = evidence.estimate(self)
        allowed = 0.0 if estimate.needs_improvement else max(0.0, self.margin - spent)
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
            worst=estimate.worst,
            allowed=allowed,
            spent=self._margin_after(spent, estimate) if outcome == "promoted" else spent,
            admitted=NATS * max(0.0, estimate.worst) if outcome == "promoted" else 0.0,
        )

    def _outcome(self, estimate: LossEstimate, allowed: float) -> Outcome:
        if estimate.sufficient and estimate.low > 0.0:
            return "rejected"
        if estimate.sufficient and estimate.high <= allowed:
            return "promoted"
        if estimate.sole_project and estimate.evaluations >= self.alone:
            return "promoted"
        most = self.most if estimate.needs_improvement else self.sum_most
        return "undecided" if estimate.size >= most or self._is_hopeless(estimate) else "open"

    def _is_hopeless(self, estimate: LossEstimate) -> bool:
        """Return whether this version has hardly been better so far, so that a newer one is more likely to be promoted.

        One that may well be rejected stays, so that its task goes back. Half of the known voters must have evaluated
        it, or enough of them: a few do not end the trials of others.
        """
        known = estimate.active.owners if estimate.active.owners > 1 else estimate.active.projects
        heard = estimate.size >= HOPE * self.most and estimate.counted >= min(HOPE * self.most, known / 2)
        hardly = -estimate.mean < HOPELESS * (estimate.high - estimate.mean)
        condemned = estimate.mean > CONDEMNED * (estimate.mean - estimate.low)
        return estimate.needs_improvement and heard and hardly and not condemned

    def _margin_after(self, spent: float, estimate: LossEstimate) -> float:
        """Return the losses admitted once the version on trial is in production.

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
    """Evidence of single evaluations, with the numbers of known projects and owners.

    Each voter counts once, however often it evaluates: an owner with the mean of its projects, where several owners are
    known, else a project with the mean of its evaluations. `left_out` voters evaluated whose evaluations do not count:
    they are not waited for.
    """

    evaluations: Sequence[Evaluation]
    active: ActiveCounts
    left_out: int = 0

    def estimate(self, gate: Gate) -> LossEstimate:
        """Return the estimate."""
        voters = self.voters()
        projects = len({evaluation.project for evaluation in self.evaluations})
        owners = len({evaluation.owner for evaluation in self.evaluations})
        known = self.active.owners if self.active.owners > 1 else self.active.projects
        needed = min(gate.voters, max(min(2, known), known - self.left_out))
        sufficient = bool(voters) and len(voters) >= needed
        size = self._size() if sufficient else 0
        low, high, worst, mean = _bound_voters(voters, size / gate.most, gate)
        return LossEstimate(
            evaluations=len(self.evaluations),
            counted=len(voters),
            size=size,
            projects=projects,
            owners=owners,
            active=self.active,
            mean=mean,
            low=low,
            high=high,
            worst=worst,
            sufficient=sufficient,
            sole_project=self.active.projects <= 1,
            needs_improvement=True,
        )

    def _size(self) -> int:
        """Return the number of evaluations, of no voter more than twice the median: none ends a trial by itself."""
        counts = Counter(
            evaluation.owner if self.active.owners > 1 else (evaluation.owner, evaluation.project)
            for evaluation in self.evaluations
        )
        most = 2 * median(counts.values())
        return int(sum(min(count, most) for count in counts.values()))

    def voters(self) -> Mapping[str, Sequence[float]]:
        """Return by voter what it reports: by owner the means of its projects, else by project its evaluations."""
        of_projects: dict[tuple[str, str], list[float]] = {}
        for evaluation in self.evaluations:
            of_projects.setdefault((evaluation.owner, evaluation.project), []).append(evaluation.difference)
        if self.active.owners <= 1:
            return {f"{owner} {project}": values for (owner, project), values in of_projects.items()}
        of_owners: dict[str, list[float]] = {}
        for (owner, _), values in of_projects.items():
            own = of_owners.setdefault(owner, [])
            own += values if len(of_projects) == len({name for name, _ in of_projects}) else [fmean(values)]
        return of_owners


@dataclass(frozen=True, slots=True)
class EvaluationSums:
    """Evidence of sums of evaluations, the oldest first; single projects are unknown, so that none can be capped.

    In its estimate `counted` is the number of evaluations without noise that would be worth as much, and `projects` and
    `owners` are the most evaluations of one sum.
    """

    sums: Sequence[EvaluationSum]

    def estimate(self, gate: Gate) -> LossEstimate:
        """Return the estimate, bounded by a normal mixture."""
        count, variance = sum(part.count for part in self.sums), _variance(self.sums)
        worth = max(0.0, count) ** 2 / variance if variance else 0.0
        distinct = max(0, round(max((part.count for part in self.sums), default=0.0)))
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
            worst=high,
            sufficient=distinct >= gate.voters,
        )


def _bound_voters(voters: Mapping[str, Sequence[float]], part: float, gate: Gate) -> tuple[float, float, float, float]:
    """Return low and high bounds of the honest mean, the bound where voters lie in its favour, and the mean.

    `part` is how much of the trial is over.

    Few voters are judged one by one, each by its own evaluations: the bounds are those of the voter in whose favour as
    many others may lie.
    """
    if not voters:
        return -1.0, 1.0, 1.0, 0.0
    means = np.sort(np.array([fmean(values) for values in voters.values()]))
    if len(voters) >= FEW_VOTERS:
        cut = int(gate.liars * len(means))
        low, high, mean = _bound_trimmed_mean(means, cut, part, gate)
        return low, high, max(high, float(means[cut:].mean()) + high - mean), mean
    bounds = [_bound_trimmed_mean(np.sort(np.array(values)), 0, part, gate) for values in voters.values()]
    lows, highs = sorted(bound[0] for bound in bounds), sorted(bound[1] for bound in bounds)
    spared = int(len(voters) > 2)  # of three or four voters one may lie
    return lows[spared], highs[len(highs) - 1 - spared], highs[-1], float(np.median(means))


def _bound_trimmed_mean(values: Array, cut: int, part: float, gate: Gate) -> tuple[float, float, float]:
    """Return bounds of the mean of ascending values without `cut` on each side, valid at every look, and the mean.

    The variance is that of the winsorized values; few values have the wider tails of Student's t.
    """
    middle = values[cut : len(values) - cut]
    mean, count = float(middle.mean()), len(middle)
    if count < 3:
        return -1.0, 1.0, mean
    winsorized = np.clip(values, middle[0], middle[-1])
    spread = float(((winsorized - winsorized.mean()) ** 2).sum())
    error = sqrt(spread / (count * (count - 1))) + 1e-9
    low = mean - error * _radius(part, count - 1, gate.wrong_rejection)
    high = mean + error * _radius(part, count - 1, gate.wrong_promotion)
    return max(-1.0, low), min(1.0, high), mean


def _radius(part: float, freedom: int, alpha: float) -> float:
    """Return the half-width of a one-sided bound after this part of a trial, in standard errors.

    The boundary of Wang and Tsiatis 1987 with a power of 1/4, which asks for more evidence the earlier a trial is, and
    holds at every look together. Its constant is that of 200,000 drawn Brownian paths, for rates from 0.1 to 10 %.
    Times `TRIMMED`, and the ratio of the quantiles of Student's t with `freedom` degrees and the normal distribution.
    """
    boundary = NormalDist().inv_cdf(1 - SPENT * alpha) / sqrt(sqrt(min(1.0, max(EARLIEST, part))))
    return TRIMMED * boundary * _student(freedom, alpha)


def _student(freedom: int, alpha: float) -> float:
    """Return how much farther out a quantile of Student's t is than that of a normal distribution.

    Cornish and Fisher's expansion, right to 2 % from four degrees on and wide below.
    """
    z = NormalDist().inv_cdf(1 - alpha)
    terms = (z**2 + 1) / 4, (5 * z**4 + 16 * z**2 + 3) / 96, (3 * z**6 + 19 * z**4 + 17 * z**2 - 15) / 384
    return inf if freedom < 1 else 1 + sum(term / freedom**power for power, term in enumerate(terms, 1))


def _variance(sums: Sequence[EvaluationSum]) -> float:
    """Return the variance of the sum of all evaluations: 1 for each of them, and the noise."""
    noise = sum(part.noise_variance for part in sums)
    return noise + max(0.0, sum(part.count for part in sums) + COUNTED * sqrt(noise))


def _bound_mean_of_sums(sums: Sequence[EvaluationSum], count: float, variance: float, gate: Gate) -> Bounds:
    """Return bounds for the mean of the honest evaluations, whatever a share `gate.sum_liars` of them says."""
    dishonest, share = gate.sum_liars * gate.reach, 1.0 - gate.sum_liars
    if count <= 0.0:
        return (-gate.reach - dishonest) / share, (gate.reach + dishonest) / share, dishonest / share
    total = sum(part.total for part in sums)
    tuned = TUNED + sums[0].noise_variance  # known before the sums are: their values must not choose it
    low = (total - _deviation(variance, tuned, gate.wrong_rejection)) / count
    high = (total + _deviation(variance, tuned, gate.sum_wrong_promotion)) / count
    low, high, mean = (gate.reach * max(-1.0, min(1.0, value)) for value in (low, high, total / count))
    return (low - dishonest) / share, (high + dishonest) / share, (mean + dishonest) / share


def _deviation(variance: float, tuned: float, alpha: float) -> float:
    """Return how far the sum is above its expectation at no time, except with a probability of `alpha`."""
    wide = variance + tuned
    return sqrt(2.0 * wide * log(sqrt(wide / tuned) / (2.0 * alpha) + 1.0))
