"""Linear margins, the sigmoid, and local online calibration of probabilities and prediction intervals."""

from array import array
from collections.abc import Mapping, Sequence
from math import exp, log
from types import MappingProxyType
from typing import NamedTuple

Vector = array  # of C floats, type code "f", as in the wire format


class LocalWeights(NamedTuple):
    """A project's corrections of the shared model: by coordinate, and by name for private features."""

    shared: Mapping[int, float] = MappingProxyType({})
    private: Mapping[str, float] = MappingProxyType({})


def zeros(size: int) -> "array[float]":
    """Return a vector of `size` zeros."""
    return array("f", bytes(4 * size))


def margin(weights: Sequence[float], indices: Sequence[int], values: Sequence[float]) -> float:
    """Return the dot product of weights and one sparse row, in double precision.

    >>> margin([0.5, 0.0, -1.0], (0, 2), (1.0, 0.25))
    0.25
    """
    return sum(weights[index] * value for index, value in zip(indices, values, strict=True))


def sigmoid(score: float) -> float:
    """Return the probability of a log-odds score, in [0, 1], without overflow.

    >>> sigmoid(0.0)
    0.5
    """
    if score >= 0:
        return 1.0 / (1.0 + exp(-score))
    odds = exp(score)
    return odds / (1.0 + odds)


class PlattScaling(NamedTuple):
    """Platt scaling, P(y) = sigmoid(slope * margin + offset), with a prior worth `slope_weight` and `offset_weight`.

    Platt, "Probabilistic outputs for support vector machines", 1999; the weights are the diagonal of the Hessian.
    """

    slope: float = 1.0
    offset: float = 0.0
    slope_weight: float = 30.0
    offset_weight: float = 5.0


_UNTRIED = {
    # It starts from evidence, and its labels are only likely.
    "triage": PlattScaling(slope_weight=100.0, offset_weight=30.0),
    # Failures come in series: a calibration that follows one predicts its end too late (docs/decisions/0065).
    "build-failure": PlattScaling(slope_weight=300.0, offset_weight=100.0),
}


def initial_scaling(task: str) -> PlattScaling:
    """Return the scaling of a task before any outcome is known."""
    return _UNTRIED.get(task, PlattScaling())


def probability(platt: PlattScaling, margin: float) -> float:
    """Return the calibrated probability of a margin, in [0, 1].

    >>> probability(PlattScaling(), 0.0)
    0.5
    """
    return sigmoid(platt.slope * margin + platt.offset)


def observe_outcome(platt: PlattScaling, margin: float, label: float, weight: float = 1.0) -> PlattScaling:
    """Return the scaling after one labelled margin: a diagonal Newton step with accumulated curvature of the log loss.

    The slope stays at 0.1 or above.
    """
    chance = probability(platt, margin)
    curvature = weight * chance * (1.0 - chance)
    slope_weight = platt.slope_weight + curvature * margin * margin
    offset_weight = platt.offset_weight + curvature
    error = weight * (chance - label)
    slope = max(0.1, platt.slope - error * margin / slope_weight)
    return PlattScaling(slope, platt.offset - error / offset_weight, slope_weight, offset_weight)


class QuantileTrackers(NamedTuple):
    """The 5 % and 95 % quantiles of a duration's residual, in spreads of its estimate, tracked online.

    An end moves outward by 0.95 of a step when it was exceeded and inward by 0.05 when not, so that in the long run it
    is exceeded one time in twenty whatever the distribution does (Gibbs and Candès, "Adaptive conformal inference",
    2021). Both are tracked in units of `scale()`. Start, step and pace were chosen on 19 recorded projects.
    """

    low: float = -3.0
    high: float = 4.0
    usual: float = 1.0  # a decayed mean of the residuals' sizes, in spreads

    def scale(self) -> float:
        """Return how narrow an interval can be while durations are nearer to what is expected than the spread says."""
        return max(LEAST_SCALE, min(1.0, self.usual))

    def ends(self) -> tuple[float, float]:
        """Return the ends of a 90 % interval, in spreads from what is expected."""
        return self.low * self.scale(), self.high * self.scale()


STEP = 0.12  # spreads
LEAST = 0.1  # spreads: an interval is never empty
LEAST_SCALE = 0.2
USUAL_PACE = 0.03  # weight of the newest residual
OUTLIER = 4.0  # usual residuals: a larger one counts as this, so that one absurd time does not widen what follows


def observe_residual(trackers: QuantileTrackers, residual: float, share: float = 0.0465) -> QuantileTrackers:
    """Return the trackers after one residual in spreads; `share` is the rate at which each end may be exceeded.

    It is a little below one in twenty, because the trackers lag where a job changes (docs/decisions/0099).
    """
    scaled = residual / trackers.scale()
    low = trackers.low + STEP * (share - (scaled < trackers.low))
    high = trackers.high + STEP * ((scaled > trackers.high) - share)
    size = min(abs(residual), OUTLIER * trackers.usual + 0.5)
    usual = trackers.usual + USUAL_PACE * (size - trackers.usual)
    return QuantileTrackers(min(low, -LEAST), max(high, LEAST), usual)


class CalibrationScore(NamedTuple):
    """The log loss and base rate of past predictions: decayed means over about 200 predictions."""

    observed: int = 0
    log_loss: float = 0.0
    positives: float = 0.0


def score_outcome(score: CalibrationScore, chance: float, label: float) -> CalibrationScore:
    """Return the score after one prediction. Log loss is in nats; the chance is clipped to [0.001, 0.999]."""
    held = min(max(chance, 0.001), 0.999)
    loss = -log(held if label else 1.0 - held)
    pace = max(1 / 200, 1 / (score.observed + 1))
    return CalibrationScore(
        score.observed + 1,
        score.log_loss + pace * (loss - score.log_loss),
        score.positives + pace * (label - score.positives),
    )
