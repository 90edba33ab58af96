"""Facts about the two caches of what was learned."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.errors import HistoryError
from fedstep.history.entry import Row
from fedstep.model.calibration import Platt, Score, Trackers
from fedstep.model.labels import Ripe
from fedstep.model.linear import Local
from fedstep.model.state import Backlog, Correction, load_backlog, load_correction, save_backlog, save_correction

numbers = st.floats(-10, 10)
short = numbers.map(lambda value: round(value, 6))
names = st.text(max_size=8)
heads = st.sampled_from(["flaky", "triage"])
coordinates = st.lists(st.tuples(st.integers(0, 99), short), max_size=3)
rows = st.builds(
    lambda subject, run, pairs, private, target: Row(
        subject, run, tuple(index for index, _ in pairs), tuple(value for _, value in pairs), private, target
    ),
    names,
    st.integers(0, 999),
    coordinates,
    st.lists(names, max_size=2).map(tuple),
    short,
)
many = st.dictionaries(heads, st.lists(rows, max_size=3).map(tuple))
ripe = st.builds(Ripe, rows, short, st.sampled_from([0.5, 1.0]))
ripes = st.dictionaries(heads, st.lists(ripe, max_size=3).map(tuple))
locals_ = st.builds(Local, st.dictionaries(st.integers(0, 99), numbers), st.dictionaries(names, numbers))
corrections = st.builds(
    Correction,
    st.dictionaries(heads, locals_),
    st.dictionaries(heads, st.builds(Platt, numbers, numbers, numbers, numbers)),
    st.dictionaries(names, st.builds(Trackers, low=numbers, high=numbers)),
    st.dictionaries(heads, st.builds(Score, st.integers(0, 99), numbers, numbers)),
)


class TestCaches:
    @settings(max_examples=40, deadline=None)
    @given(corrections)
    def test_a_correction_comes_back_exactly(self, correction: Correction) -> None:
        assert load_correction(save_correction(correction, "abc")) == (correction, "abc")

    @settings(max_examples=30, deadline=None)
    @given(st.builds(Backlog, many, ripes, ripes))
    def test_backlog_round_trips_and_its_bytes_are_stable(self, backlog: Backlog) -> None:
        """A backlog comes back exactly, and the same one gives the same bytes."""
        packed = save_backlog(backlog, "abc")
        assert load_backlog(packed) == (backlog, "abc")
        assert save_backlog(load_backlog(packed)[0], "abc") == packed

    @given(st.binary(max_size=80))
    def test_any_bytes_are_a_history_error(self, content: bytes) -> None:
        with pytest.raises(HistoryError):
            load_correction(content)
        for packed in (content, content[::-1], save_backlog(Backlog(), "abc")[:20] + content):
            with pytest.raises(HistoryError):
                load_backlog(packed)

    def test_what_another_schema_has_learned_is_a_history_error(self) -> None:
        content = json.loads(save_correction(Correction(), "abc"))
        with pytest.raises(HistoryError, match="another version"):
            load_correction(json.dumps({**content, "schema": "0" * 16}).encode())
