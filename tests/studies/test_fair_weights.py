"""Facts about what the tests of one project count when the shared model is learned without a history."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.evaluation.replay_tests import ENOUGH, FLAKY_SHARE, MOST, PROJECT, fair_weights


@given(st.lists(st.booleans(), max_size=400))
def test_no_test_counts_more_than_five_and_no_project_more_than_its_share(flaky: list[bool]) -> None:
    weights = fair_weights(flaky)
    assert len(weights) == len(flaky)
    assert all(0.0 <= weight <= MOST for weight in weights)
    assert sum(weights) <= PROJECT * 1.0001


def test_a_large_project_counts_as_much_as_a_small_one() -> None:
    large, small = fair_weights([True] * 100 + [False] * 5900), fair_weights([True] * 20 + [False] * 580)
    assert sum(large) == pytest.approx(PROJECT)
    assert sum(small) == pytest.approx(sum(large))
    assert sum(large[:100]) == pytest.approx(PROJECT * FLAKY_SHARE)


def test_a_project_with_few_flaky_tests_counts_less_and_one_without_counts_nothing() -> None:
    assert sum(fair_weights([True] + [False] * 999)) == pytest.approx(PROJECT / ENOUGH, rel=0.05)
    assert fair_weights([False] * 9) == [0.0] * 9
