"""From (epsilon, delta) to noise and back."""

import sys
from array import array
from math import log, sqrt

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedstep.errors import MissingExtra, UsageError
from fedstep.federation.messages import Model, PrivacyGuarantee, pack_model, unpack_model
from fedstep.server.differential_privacy import (
    MOST_DAYS,
    MOST_DELTA,
    MOST_EPSILON,
    MOST_RELEASES,
    calibrate_budget,
    compute_epsilon,
)

YEAR = PrivacyGuarantee(8.0, 1e-6, 52, 7.0)
HEADS = {"flaky": array("f", [0.0])}


def positive(most: float) -> st.SearchStrategy[float]:
    return st.floats(0.0, most, exclude_min=True)


class TestNoise:
    def test_noise_keeps_the_guarantee_and_barely_less_would_not(self):
        """The computed noise keeps the privacy guarantee, and a thousandth less would not."""
        budget = calibrate_budget(YEAR)
        assert budget.epsilon(budget.most) <= 8.0
        assert compute_epsilon(52 / (2 * (budget.multiplier * 0.999) ** 2), 1e-6) > 8.0

    def test_no_more_is_claimed_than_the_proven_bound_of_zcdp(self):
        """Bun and Steinke 2016, proposition 1.3: rho of zCDP is (rho + 2 sqrt(rho log(1/delta)), delta)."""
        for rho in (0.01, 0.2, 1.0, 5.0):
            assert 0 < compute_epsilon(rho, 1e-6) <= rho + 2 * sqrt(rho * log(1e6))

    @settings(max_examples=15, deadline=None)
    @given(st.integers(1, 200), st.floats(0.5, 16.0))
    def test_four_times_the_contributions_need_twice_the_noise(self, releases: int, epsilon: float):
        one, four = (
            calibrate_budget(PrivacyGuarantee(epsilon, 1e-6, releases * times, 7.0)).multiplier for times in (1, 4)
        )
        assert four == pytest.approx(2 * one, rel=1e-6)

    def test_spent_budget_grows_with_every_release_up_to_the_limit(self):
        """The spent budget grows with every release, up to the guarantee."""
        budget = calibrate_budget(YEAR)
        row = [budget.epsilon(count * budget.cost) for count in range(53)]
        assert row[0] == 0.0
        assert row == sorted(set(row))
        assert row[-1] == pytest.approx(8.0, rel=1e-6)


class TestGuarantee:
    @pytest.mark.parametrize(
        "promise",
        [
            PrivacyGuarantee(0.0, 1e-6, 52, 7.0),
            PrivacyGuarantee(-1.0, 1e-6, 52, 7.0),
            PrivacyGuarantee(float("nan"), 1e-6, 52, 7.0),
            PrivacyGuarantee(8.0, 0.0, 52, 7.0),
            PrivacyGuarantee(8.0, 0.5, 52, 7.0),
            PrivacyGuarantee(8.0, 1e-6, 0, 7.0),
            PrivacyGuarantee(8.0, 1e-6, 52, 0.0),
            PrivacyGuarantee(8.0, 1e-6, 52, float("inf")),
        ],
    )
    def test_a_promise_that_means_nothing_is_refused(self, promise: PrivacyGuarantee):
        with pytest.raises(UsageError):
            calibrate_budget(promise)

    @given(
        st.builds(
            PrivacyGuarantee,
            positive(MOST_EPSILON),
            positive(MOST_DELTA),
            st.integers(1, MOST_RELEASES),
            positive(MOST_DAYS),
        )
    )
    @example(PrivacyGuarantee(8.0, 1e-6, 52, 0.0416667))
    @example(PrivacyGuarantee(8.0, 0.00012345, 52, 7.0))
    @example(PrivacyGuarantee(0.3333333, 1e-6, 52, 7.0))
    def test_every_valid_guarantee_is_published_as_it_was_given(self, promise: PrivacyGuarantee):
        """Every guarantee in range is published to readers as it was given."""
        model = Model("a" * 16, 1, 1, "2026-01-31T12:00Z", HEADS, HEADS, promise=promise)
        assert unpack_model(pack_model(model)).promise == promise

    def test_without_dp_accounting_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "dp_accounting", None)
        with pytest.raises(MissingExtra, match=r"dp_accounting is not installed.*fedstep\[server,privacy\]"):
            compute_epsilon(0.123, 1e-6)
