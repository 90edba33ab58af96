"""Facts about what the tests of one project count when the shared model is learned without a history."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.evaluation.replay_tests import ENOUGH, FLAKY_SHARE, MOST, PROJECT, fair_weights


class TestFairWeights:
    @given(st.lists(st.booleans(), max_size=400))
    def test_no_test_counts_over_five_and_no_project_over_its_share(self, flaky: list[bool]) -> None:
        """No test counts more than five, and no project more than its share."""
        weights = fair_weights(flaky)
        assert len(weights) == len(flaky)
        assert all(0.0 <= weight <= MOST for weight in weights)
        assert sum(weights) <= PROJECT * 1.0001

    def test_a_large_project_counts_as_much_as_a_small_one(self) -> None:
        large, small = fair_weights([True] * 100 + [False] * 5900), fair_weights([True] * 20 + [False] * 580)
        assert sum(large) == pytest.approx(PROJECT)
        assert sum(small) == pytest.approx(sum(large))
        assert sum(large[:100]) == pytest.approx(PROJECT * FLAKY_SHARE)

    def test_project_with_few_flaky_tests_counts_less(self) -> None:
        """A project with few flaky tests counts less, and one without counts nothing."""
        assert sum(fair_weights([True] + [False] * 999)) == pytest.approx(PROJECT / ENOUGH, rel=0.05)
        assert fair_weights([False] * 9) == [0.0] * 9
