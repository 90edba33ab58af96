"""Facts about the expected time of a test."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.features.test_duration import expected_seconds, expected_test_seconds
from fedstep.history.test_table import SHORTEST, TestStats, with_time
from fedstep.types import Unavailable

seconds = st.floats(0, 1e6)
histories = st.lists(seconds, min_size=1, max_size=20)


def expected(times: Sequence[float]) -> float:
    value = expected_seconds(times)
    assert not isinstance(value, Unavailable)
    return value


class TestExpectedSeconds:
    @given(histories)
    def test_the_expectation_lies_among_the_past_times(self, times: list[float]) -> None:
        counted = [max(time, SHORTEST) for time in times]
        assert min(counted) * (1 - 1e-9) - 0.0005 <= expected(times) <= max(counted) * (1 + 1e-9) + 0.0005

    @given(st.lists(st.floats(1.0, 1e3), min_size=1, max_size=20), st.floats(1.0, 100.0))
    def test_in_another_unit_the_expectation_is_the_same(self, times: list[float], factor: float) -> None:
        assert expected([time * factor for time in times]) == pytest.approx(expected(times) * factor, rel=1e-6, abs=0.1)

    @given(st.floats(SHORTEST, 1e6), st.integers(1, 20))
    def test_a_time_that_never_varies_is_expected_again(self, time: float, count: int) -> None:
        assert expected([time] * count) == pytest.approx(time, rel=1e-9, abs=0.000501)

    @given(histories)
    def test_the_expectation_is_a_whole_number_of_milliseconds(self, times: list[float]) -> None:
        value = expected(times)
        assert value >= SHORTEST
        assert value == round(value, 3)

    def test_a_test_without_a_time_has_no_expectation(self) -> None:
        assert isinstance(expected_seconds([]), Unavailable)


class TestMovingTimes:
    def test_timeouts_and_slow_machines_do_not_move_it(self) -> None:
        assert expected([0.20, 0.21, 30.0, 0.20, 0.80, 0.19, 30.0]) == pytest.approx(0.2, abs=0.01)

    def test_it_follows_a_time_that_has_moved_within_six_runs(self) -> None:
        assert expected([1.0] * 14 + [3.0] * 5) == pytest.approx(1.0, abs=0.05)
        assert expected([1.0] * 14 + [3.0] * 6) == pytest.approx(3.0, abs=0.05)

    def test_of_two_usual_times_one_is_expected_and_not_their_mean(self) -> None:
        assert expected([1.0, 4.0] * 10) == pytest.approx(4.0, abs=0.1)
        assert expected([4.0, 1.0, 1.0, 1.0] * 5) == pytest.approx(1.0, abs=0.1)

    def test_among_scattered_times_it_is_nearer_to_the_short_ones(self) -> None:
        """A miss of half a second is a larger share of a second than of two."""
        assert expected([1.0, 1.2, 1.4, 1.2, 1.0, 1.4]) < 1.2


class TestRows:
    def test_the_stats_of_a_test_give_its_expectation(self) -> None:
        fast = TestStats("a.B#fast")
        for time in (0.2, 0.21, 0.2):
            fast.times = with_time(fast.times, time)
        assert expected_test_seconds(fast) == pytest.approx(0.203, abs=0.002)
        assert isinstance(expected_test_seconds(TestStats("a.B#untimed")), Unavailable)
