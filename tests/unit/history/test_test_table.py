"""Facts about the recent times of a test, kept as a text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.history.records import BuildRecord
from fedstep.history.summary import Summary, apply_record, decode_summary, encode_summary
from fedstep.history.test_table import SHORTEST, WINDOW, read_times, with_time
from fedstep.types import BuildOutcome, Outcome, TestRun

TEST = "a.B#works"


def kept(times: list[float]) -> str:
    text = ""
    for seconds in times:
        text = with_time(text, seconds)
    return text


class TestEncoding:
    @given(st.lists(st.floats(0, 9e5), max_size=50))
    def test_newest_times_come_back_to_an_eighth_of_a_percent(self, times: list[float]) -> None:
        """The newest times come back in order, to an eighth of a percent."""
        newest = [max(seconds, SHORTEST) for seconds in times[-WINDOW:]]
        assert read_times(kept(times)) == pytest.approx(newest, rel=1.3e-3)

    @given(st.floats(0, allow_infinity=False))
    def test_any_time_is_two_characters_that_json_writes_as_they_are(self, seconds: float) -> None:
        assert len(json.dumps(kept([seconds]))) == 4

    def test_a_time_of_more_than_eleven_days_is_kept_as_eleven_days(self) -> None:
        assert read_times(kept([1e12]))[0] == pytest.approx(11 * 86_400, rel=0.05)


def folded(*times: float) -> Summary:
    summary = Summary()
    for number, seconds in enumerate(times):
        run = TestRun(TEST, Outcome.PASSED, seconds)
        entry = BuildRecord(f"{number:032x}", 1e9 + number, 1e9 + number, 60.0, "", BuildOutcome.PASSED, tests=(run,))
        summary = apply_record(summary, str(number), entry)
    return summary


class TestTable:
    def test_the_table_keeps_the_times_that_reports_gave(self) -> None:
        summary = folded(0.1, float("nan"), 0.3)
        assert read_times(summary.tests[TEST].times) == pytest.approx((0.1, 0.3), rel=2e-3)
        assert decode_summary(encode_summary(summary)) == summary
