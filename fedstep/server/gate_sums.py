"""The gate where votes are seen as sums alone: noised ones, or those of secret shares. Pure; valid at any time.

A sub-Gaussian mixture: Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence
sequences", Annals of Statistics 2021, their one-sided normal mixture in closed form. A value in [-1, 1] is sub-Gaussian
with variance 1 (Hoeffding 1963); so is noise, Gaussian or discrete Gaussian, with its own (Canonne et al. 2020).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt

from fedstep.server.gate import Gate, Verdict, outcome_of, spent_after

__all__ = ["Release", "judge_sums"]

TUNED = 5.0  # the bound is closest at about twelve times this variance, and valid at any
COUNTED = 4.0  # standard deviations by which a noised count may be too low


@dataclass(frozen=True, slots=True)
class Release:
    """The votes that one fold tells of, one a project, as their count and their sum.

    Each vote is drawn in to the gate's reach and divided by it, so that it is in [-1, 1] and `total` in [-votes,
    votes]. `noise_variance` is that of the noise in `total`, plus that of the noise in `votes` where both have some.
    """

    votes: float
    total: float
    noise_variance: float = 0.0


def judge_sums(releases: Sequence[Release], gate: Gate, spent: float = 0.0) -> Verdict:
    """The verdict on a trial after these releases, with `spent` of the margin gone before it.

    The rules and error rates are those of `gate.judge`; nothing is known of single projects, so that no cap on their
    share is applied here. The figure `counted` is how many votes without noise would say as much; `projects` and
    `owners` are the most votes of one release.
    """
    votes, variance = sum(release.votes for release in releases), _variance(releases)
    worth = max(0.0, votes) ** 2 / variance if variance else 0.0
    low, high, mean = _honest(releases, votes, variance, gate)
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
        spent=spent_after(spent, high, mean, False, gate) if outcome == "promoted" else spent,
    )


def _variance(releases: Sequence[Release]) -> float:
    """What the sum of the votes may vary by: 1 for each vote, and the noise."""
    noise = sum(release.noise_variance for release in releases)
    return noise + max(0.0, sum(release.votes for release in releases) + COUNTED * sqrt(noise))


def _honest(releases: Sequence[Release], votes: float, variance: float, gate: Gate) -> tuple[float, float, float]:
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
