"""Local and online: probabilities that mean what they say, and intervals that cover what they claim."""

from dataclasses import dataclass
from math import log

from fedstep.model.linear import sigmoid

__all__ = ["Platt", "Score", "Trackers", "observe_outcome", "observe_residual", "probability", "score_outcome"]


@dataclass(frozen=True, slots=True)
class Platt:
    """Platt scaling, P(y) = sigmoid(slope * margin + offset), with a prior worth `slope_weight` and `offset_weight`.

    Platt, "Probabilistic outputs for support vector machines", 1999; the weights are the diagonal of the Hessian.
    """

    slope: float = 1.0
    offset: float = 0.0
    slope_weight: float = 30.0
    offset_weight: float = 5.0


def probability(platt: Platt, margin: float) -> float:
    """The calibrated probability of a margin, in [0, 1].

    >>> probability(Platt(), 0.0)
    0.5
    """
    return sigmoid(platt.slope * margin + platt.offset)


def observe_outcome(platt: Platt, margin: float, label: float, weight: float = 1.0) -> Platt:
    """The scaling after one labelled margin: a diagonal Newton step on the log loss, with memory of all before.

    A slope never turns round: it stays above 0.1.
    """
    chance = probability(platt, margin)
    curvature = weight * chance * (1.0 - chance)
    slope_weight = platt.slope_weight + curvature * margin * margin
    offset_weight = platt.offset_weight + curvature
    error = weight * (chance - label)
    slope = max(0.1, platt.slope - error * margin / slope_weight)
    return Platt(slope, platt.offset - error / offset_weight, slope_weight, offset_weight)


@dataclass(frozen=True, slots=True)
class Trackers:
    """The 5 % and 95 % quantiles of log(seconds / predicted), tracked online, and the scale of a step.

    A tracker moves up by 0.95 of a step when it was exceeded and down by 0.05 when not, so that in the long run it is
    exceeded one time in twenty whatever the distribution does (Gibbs and Candès, "Adaptive conformal inference", 2021).
    """

    low: float = -0.35
    high: float = 0.45
    scale: float = 0.2  # decayed mean of |residual|
    seen: int = 0


def observe_residual(trackers: Trackers, residual: float, share: float = 0.05) -> Trackers:
    """The trackers after one residual; early steps are larger, so that a young project finds its own width."""
    pace = max(0.02, 1.0 / (trackers.seen + 10))
    scale = trackers.scale + pace * (min(abs(residual), 3.0) - trackers.scale)
    step = scale * max(0.1, 2.0 / (trackers.seen + 4))
    low = trackers.low + step * (share - (residual < trackers.low))
    high = trackers.high + step * ((residual > trackers.high) - share)
    return Trackers(min(low, -0.001), max(high, 0.001), scale, trackers.seen + 1)


@dataclass(frozen=True, slots=True)
class Score:
    """How predictions have fared so far, beside the base rate: decayed sums over about 200 predictions."""

    count: int = 0
    log_loss: float = 0.0
    positives: float = 0.0


def score_outcome(score: Score, chance: float, label: float) -> Score:
    """The score after one prediction. Log loss is in nats, a chance is held inside [0.001, 0.999]."""
    held = min(max(chance, 0.001), 0.999)
    loss = -log(held if label else 1.0 - held)
    pace = max(1 / 200, 1 / (score.count + 1))
    return Score(
        score.count + 1,
        score.log_loss + pace * (loss - score.log_loss),
        score.positives + pace * (label - score.positives),
    )
