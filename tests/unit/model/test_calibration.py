"""Facts about calibration on simulated streams."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.model.linear import (
    CalibrationScore,
    PlattScaling,
    QuantileTrackers,
    initial_scaling,
    observe_outcome,
    observe_residual,
    probability,
    score_outcome,
    sigmoid,
)
from fedstep.schema.schema import TASK_NAMES


class TestProbabilities:
    @pytest.mark.parametrize(("slope", "offset"), [(0.4, -1.5), (2.0, 1.0), (1.0, -3.0)])
    def test_wrong_slope_and_offset_of_margins_are_corrected(self, slope: float, offset: float) -> None:
        """Probabilities become calibrated when margins have a wrong slope and offset."""
        draw, platt = random.Random(3), PlattScaling()
        stream = [draw.gauss(0, 1.5) for _ in range(6000)]
        late: list[tuple[float, float]] = []
        for number, margin in enumerate(stream):
            truth = sigmoid(slope * margin + offset)
            label = float(draw.random() < truth)
            if number >= 3000:
                late.append((probability(platt, margin), truth))
            platt = observe_outcome(platt, margin, label)
        assert sum(abs(said - truth) for said, truth in late) / len(late) < 0.04
        assert abs(sum(said - truth for said, truth in late)) / len(late) < 0.02

    def test_margin_is_the_log_odds_before_any_outcome(self) -> None:
        """Before any outcome a margin is the log odds."""
        for task in TASK_NAMES:
            assert probability(initial_scaling(task), 1.3) == pytest.approx(sigmoid(1.3))

    def test_one_outcome_moves_triage_and_failure_less(self) -> None:
        """Triage starts from evidence, and builds fail in series: their first outcomes are no calibration."""
        tasks = ("flaky", "triage", "build-failure")
        flaky, triage, failure = (observe_outcome(initial_scaling(task), 2.0, 0.0) for task in tasks)
        assert flaky.offset < triage.offset < failure.offset < 0.0
        assert flaky.slope < triage.slope < failure.slope < 1.0

    def test_the_slope_never_turns_round(self) -> None:
        platt = PlattScaling()
        for number in range(2000):
            margin = 3.0 if number % 2 else -3.0
            platt = observe_outcome(platt, margin, float(margin < 0))
        assert platt.slope >= 0.1

    def test_a_lighter_outcome_moves_less(self) -> None:
        heavy, light = (observe_outcome(PlattScaling(), 1.0, 0.0, weight) for weight in (1.0, 0.5))
        assert heavy.offset < light.offset < 0


STREAMS = {  # residuals in spreads
    "gaussian": lambda draw, _: draw.gauss(0, 1.5),
    "skewed": lambda draw, _: draw.expovariate(0.5) - 1.5,
    "narrow": lambda draw, _: draw.gauss(0, 0.5),
    "wide": lambda draw, _: draw.gauss(0, 6.0),
    "drifting mean": lambda draw, n: draw.gauss(math.sin(n / 500), 1.0),
    "drifting width": lambda draw, n: draw.gauss(0, 1.0 + (n % 2000) / 2000),
    "a step": lambda draw, n: draw.gauss(1.5 if n > 4000 else 0.0, 1.0),
}


class TestIntervals:
    @pytest.mark.parametrize("name", STREAMS)
    def test_intervals_cover_nine_in_ten(self, name: str) -> None:
        draw, trackers, inside = random.Random(5), QuantileTrackers(), 0
        for number in range(7000):
            residual = STREAMS[name](draw, number)
            low, high = trackers.ends()
            inside += number >= 2000 and low <= residual <= high
            trackers = observe_residual(trackers, residual)
        assert 0.88 <= inside / 5000 <= 0.92

    def test_an_interval_narrows_soon_and_never_widens_at_once(self) -> None:
        """Forty builds nearer than the spread says narrow it to a half; one absurd time widens it a little."""
        trackers = QuantileTrackers()
        for number in range(40):
            trackers = observe_residual(trackers, 0.1 if number % 2 else -0.1)
        low, high = trackers.ends()
        assert high - low < 0.5 * 7.0
        after_low, after_high = observe_residual(trackers, 1000.0).ends()
        assert after_high - after_low < 1.25 * (high - low)

    @given(st.lists(st.floats(-50, 50), max_size=60))
    def test_the_low_end_stays_below_the_high_end(self, residuals: list[float]) -> None:
        trackers = QuantileTrackers()
        for residual in residuals:
            trackers = observe_residual(trackers, residual)
            assert trackers.low < 0 < trackers.high


class TestSteps:
    @given(st.floats(-1e3, 1e3), st.sampled_from([0.0, 1.0]), st.floats(0.1, 1.0))
    def test_a_platt_step_stays_finite_and_remembers_more(self, margin: float, label: float, weight: float) -> None:
        platt = observe_outcome(PlattScaling(), margin, label, weight)
        assert math.isfinite(platt.slope)
        assert math.isfinite(platt.offset)
        assert platt.slope_weight >= 30.0

    def test_a_score_is_the_mean_of_what_was_seen(self) -> None:
        score = CalibrationScore()
        for chance, label in ((0.8, 1.0), (0.4, 0.0), (0.5, 1.0)):
            score = score_outcome(score, chance, label)
        assert score.observed == 3
        assert score.positives == pytest.approx(2 / 3)
        assert score.log_loss == pytest.approx(-(math.log(0.8) + math.log(0.6) + math.log(0.5)) / 3)
        assert score_outcome(CalibrationScore(), 0.0, 1.0).log_loss == pytest.approx(-math.log(0.001))
