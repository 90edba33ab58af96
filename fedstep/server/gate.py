"""The gate: whether a snapshot of a task may go into production. Pure; valid whenever it is looked at.

A vote is what one update says of one task: the mean clipped loss difference, trial less production, on rows that
nobody has learned; in units of its bound, so in [-1, 1]. Confidence sequences by betting: Waudby-Smith and Ramdas,
"Estimating means of bounded random variables by betting", JRSS B 2024; Howard et al., Annals of Statistics 2021.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from math import log, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Outcome = Literal["open", "promoted", "rejected", "undecided"]
Array = NDArray[np.float64]

BETS = np.array([0.95, 0.7, 0.5, 0.3, 0.15, 0.07])  # shares of the largest bet that cannot lose all; mixed evenly
SECTIONS, NARROWINGS = 16, 4  # of the interval that a bound is looked for in
FREE = 3  # votes that every project has whatever the others do


@dataclass(frozen=True, slots=True)
class Gate:
    """The rules of a trial. Losses are in units of the bound.

    `margin`: how much worse may go into production, altogether. `wrong_promotion`, `wrong_rejection`: the error rates.
    `liars`: the share of votes that may be lies. `reach`: votes are drawn in to it, so that no lie weighs more. `most`
    votes end a trial. `alone`: a lone project's production follows after so many. `voters`: distinct projects needed,
    where so many are active; `share`: how much of the votes one project, and one owner, may have then.
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


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One update's word on one snapshot: below 0, it was better than production."""

    project: str
    owner: str
    difference: float


@dataclass(frozen=True, slots=True)
class ActiveCounts:
    """Distinct projects and owners that have sent something lately."""

    projects: int
    owners: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome and every figure that led to it.

    `low` and `high` bound how much worse the snapshot is for the honest, lies allowed for; `allowed` is what it might
    have been, `spent` the losses admitted so far, this promotion included.
    """

    outcome: Outcome
    votes: int
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
        """All of it but the outcome, by name."""
        return {name: value for name, value in asdict(self).items() if name != "outcome"}


def judge_trial(votes: Sequence[Evaluation], active: ActiveCounts, spent: float, gate: Gate) -> Verdict:
    """The verdict on a trial after these votes, in the order they came, with `spent` of the margin gone before it.

    "undecided" gives way to a newer snapshot, "open" goes on.
    """
    heard = eligible_votes(votes, active, gate)
    differences = np.array([vote.difference for vote in heard], np.float64)
    alone = active.projects <= 1
    liars = 0.0 if alone else gate.liars
    low, high, mean = _honest(differences, liars, gate)
    allowed = max(0.0, gate.margin - spent)
    enough = _enough(heard, active, gate)
    outcome = outcome_of(enough, len(votes), low, high, allowed, gate)
    if alone and outcome in ("open", "undecided") and len(heard) >= gate.alone:
        outcome = "promoted"
    return Verdict(
        outcome=outcome,
        votes=len(votes),
        counted=len(heard),
        projects=len({vote.project for vote in heard}),
        owners=len({vote.owner for vote in heard}),
        active_projects=active.projects,
        active_owners=active.owners,
        mean=mean,
        low=low,
        high=high,
        allowed=allowed,
        spent=margin_after(spent, high, mean, alone, gate) if outcome == "promoted" else spent,
    )


def eligible_votes(votes: Sequence[Evaluation], active: ActiveCounts, gate: Gate) -> tuple[Evaluation, ...]:
    """The votes that count, the first ones of each project and owner: none has more than its share of them."""
    fair = _capped(votes, lambda vote: vote.project, active.projects, gate)
    return tuple(_capped(fair, lambda vote: vote.owner, active.owners, gate))


def upper_bound(values: Array, alpha: float) -> float:
    """A bound that the mean of values in [0, 1] exceeds at no time, but for a chance of `alpha`.

    The smallest mean against which a bettor, who wins when values are below it, has made 1/alpha of 1 (Ville).

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
    """The logarithm of the bettor's wealth against each of these means; it grows with the mean."""
    room = np.maximum(1.0 - means, 1e-300)[:, None]
    odds = np.maximum(means[:, None] - values, -room) / room
    logs = np.log1p(BETS[:, None, None] * odds).sum(axis=2)
    return np.where(means >= 1.0, np.inf, np.logaddexp.reduce(logs, axis=0) - np.log(len(BETS)))


def _honest(differences: Array, liars: float, gate: Gate) -> tuple[float, float, float]:
    """Bounds for the mean of the honest votes, drawn in, whatever the liars say; and a cautious mean."""
    reach, share = gate.reach, 1.0 - liars
    scaled = (np.clip(differences, -reach, reach) + reach) / (2 * reach)
    high = 2 * reach * upper_bound(scaled, gate.wrong_promotion) - reach
    low = reach - 2 * reach * upper_bound(1.0 - scaled, gate.wrong_rejection)
    mean = 2 * reach * float(scaled.mean()) - reach if len(scaled) else 0.0
    return (low - liars * reach) / share, (high + liars * reach) / share, (mean + liars * reach) / share


def outcome_of(enough: bool, votes: int, low: float, high: float, allowed: float, gate: Gate) -> Outcome:
    """What these bounds of the honest loss mean after so many votes."""
    if enough and low > 0.0:
        return "rejected"
    if enough and high <= allowed:
        return "promoted"
    return "undecided" if votes >= gate.most else "open"


def _enough(heard: Sequence[Evaluation], active: ActiveCounts, gate: Gate) -> bool:
    """Whether enough distinct projects and owners voted, of those that are there."""
    return len({vote.project for vote in heard}) >= min(gate.voters, active.projects) and (
        len({vote.owner for vote in heard}) >= min(gate.voters, active.owners)
    )


def margin_after(spent: float, high: float, mean: float, alone: bool, gate: Gate) -> float:
    """The losses admitted once this snapshot is in production.

    What it may be worse is admitted. A proven improvement gives back half of its cautious mean (whoever stops as soon
    as it is proven has an estimate that flatters), and never more than was spent. A lone project admits nothing: nobody
    else predicts with its production.
    """
    if alone:
        return spent
    return max(0.0, spent + (min(high, gate.margin) if high > 0.0 else min(0.0, mean / 2)))


def _capped(votes: Iterable[Evaluation], key: Callable[[Evaluation], str], active: int, gate: Gate) -> list[Evaluation]:
    """The first votes of each key, as many as keep every key within its share; few keys may have any share."""
    votes = list(votes)
    counts = Counter(map(key, votes))
    if active < gate.voters or not counts:
        return votes
    most = max(counts.values())
    while most > FREE and most > gate.share * sum(min(count, most) for count in counts.values()):
        most -= 1
    seen: Counter[str] = Counter()
    kept = []
    for vote in votes:
        seen[key(vote)] += 1
        if seen[key(vote)] <= most:
            kept.append(vote)
    return kept


TUNED = 5.0  # the bound is closest at about twelve times this variance, and valid at any
COUNTED = 4.0  # standard deviations by which a noised count may be too low


@dataclass(frozen=True, slots=True)
class EvaluationSum:
    """The votes that one fold tells of, one a project, as their count and their sum.

    Each vote is drawn in to the gate's reach and divided by it, so that it is in [-1, 1] and `total` in [-votes,
    votes]. `noise_variance` is that of the noise in `total`, plus that of the noise in `votes` where both have some.
    """

    votes: float
    total: float
    noise_variance: float = 0.0


def judge_evaluation_sums(releases: Sequence[EvaluationSum], gate: Gate, spent: float = 0.0) -> Verdict:
    """The verdict on a trial after these releases, with `spent` of the margin gone before it.

    The rules and error rates are those of `gate.judge`; nothing is known of single projects, so that no cap on their
    share is applied here. The figure `counted` is how many votes without noise would say as much; `projects` and
    `owners` are the most votes of one release.
    """
    votes, variance = sum(release.votes for release in releases), _variance(releases)
    worth = max(0.0, votes) ** 2 / variance if variance else 0.0
    low, high, mean = _honest_sums(releases, votes, variance, gate)
    distinct = max(0, round(max((release.votes for release in releases), default=0.0)))
    allowed = max(0.0, gate.margin - spent)
    outcome = outcome_of(distinct >= gate.voters, int(worth), low, high, allowed, gate)
    return Verdict(
        outcome=outcome,
        votes=max(0, round(votes)),
        counted=int(worth),
        projects=distinct,
        owners=distinct,
        active_projects=distinct,
        active_owners=distinct,
        mean=mean,
        low=low,
        high=high,
        allowed=allowed,
        spent=margin_after(spent, high, mean, False, gate) if outcome == "promoted" else spent,
    )


def _variance(releases: Sequence[EvaluationSum]) -> float:
    """What the sum of the votes may vary by: 1 for each vote, and the noise."""
    noise = sum(release.noise_variance for release in releases)
    return noise + max(0.0, sum(release.votes for release in releases) + COUNTED * sqrt(noise))


def _honest_sums(
    releases: Sequence[EvaluationSum], votes: float, variance: float, gate: Gate
) -> tuple[float, float, float]:
    """Bounds for the mean of the honest votes whatever the liars say, and a cautious mean, in units of the bound."""
    lies, share = gate.liars * gate.reach, 1.0 - gate.liars
    if votes <= 0.0:
        return (-gate.reach - lies) / share, (gate.reach + lies) / share, lies / share
    total = sum(release.total for release in releases)
    tuned = TUNED + releases[0].noise_variance  # known before the sums are: what they say must not choose it
    low = (total - _deviation(variance, tuned, gate.wrong_rejection)) / votes
    high = (total + _deviation(variance, tuned, gate.wrong_promotion)) / votes
    low, high, mean = (gate.reach * max(-1.0, min(1.0, value)) for value in (low, high, total / votes))
    return (low - lies) / share, (high + lies) / share, (mean + lies) / share


def _deviation(variance: float, tuned: float, alpha: float) -> float:
    """How far the sum is above its expectation at no time, but for a chance of `alpha`."""
    wide = variance + tuned
    return sqrt(2.0 * wide * log(sqrt(wide / tuned) / (2.0 * alpha) + 1.0))
