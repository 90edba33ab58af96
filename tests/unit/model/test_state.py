"""Facts about the two caches of what was learned."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.errors import HistoryError
from fedstep.history.records import Example
from fedstep.model.experts import START
from fedstep.model.labels import LabelledExample
from fedstep.model.linear import CalibrationScore, LocalWeights, PlattScaling, QuantileTrackers
from fedstep.model.state import (
    ExampleQueue,
    LocalModel,
    SentBatch,
    decode_local_model,
    decode_queue,
    encode_local_model,
    encode_queue,
)

numbers = st.floats(-10, 10)
positive = st.floats(1e-6, 10)
short = numbers.map(lambda value: round(value, 6))
names = st.text(max_size=8)
tasks = st.sampled_from(["flaky", "triage"])
coordinates = st.lists(st.tuples(st.integers(0, 99), short), max_size=3)
rows = st.builds(
    lambda subject, run, pairs, private, target: Example(
        subject, run, tuple(index for index, _ in pairs), tuple(value for _, value in pairs), private, target
    ),
    names,
    st.integers(0, 999),
    coordinates,
    st.lists(names, max_size=2).map(tuple),
    short,
)
many = st.dictionaries(tasks, st.lists(rows, max_size=3).map(tuple))
ripe = st.builds(LabelledExample, rows, short, st.sampled_from([0.5, 1.0]))
ripes_of = st.lists(ripe, max_size=3).map(tuple)
ripes = st.dictionaries(tasks, ripes_of)
sent = st.dictionaries(
    tasks, st.lists(st.builds(SentBatch, ripes_of, st.lists(names, max_size=2).map(tuple)), max_size=3).map(tuple)
)
locals_ = st.builds(LocalWeights, st.dictionaries(st.integers(0, 99), numbers), st.dictionaries(names, numbers))
corrections = st.builds(
    LocalModel,
    st.dictionaries(tasks, locals_),
    st.dictionaries(tasks, st.builds(PlattScaling, numbers, numbers, positive, positive)),
    st.dictionaries(names, st.builds(QuantileTrackers, low=numbers, high=numbers, usual=numbers)),
    st.dictionaries(tasks, st.builds(CalibrationScore, st.integers(0, 99), positive, positive)),
    st.dictionaries(names, st.tuples(*(st.floats(-50, 0) for _ in START))),
)


class TestCaches:
    @settings(max_examples=40, deadline=None)
    @given(corrections)
    def test_a_correction_comes_back_exactly(self, correction: LocalModel) -> None:
        assert decode_local_model(encode_local_model(correction, "abc")) == (correction, "abc")

    @pytest.mark.slow
    @settings(max_examples=30, deadline=None)
    @given(st.builds(ExampleQueue, many, ripes, ripes, sent))
    def test_backlog_round_trips_and_its_bytes_are_stable(self, backlog: ExampleQueue) -> None:
        """A backlog comes back exactly, and the same one gives the same bytes."""
        packed = encode_queue(backlog, "abc")
        assert decode_queue(packed) == (backlog, "abc")
        assert encode_queue(decode_queue(packed)[0], "abc") == packed

    def test_queue_of_an_earlier_version_has_sent_nothing(self):
        """Until now what was sent was not kept: such a file is read as it is, and nothing is learned again."""
        fields = json.loads(encode_queue(ExampleQueue(), "abc"))
        del fields["sent"]
        assert decode_queue(json.dumps(fields).encode()) == (ExampleQueue(), "abc")

    @given(st.binary(max_size=80))
    def test_any_bytes_are_a_history_error(self, content: bytes) -> None:
        with pytest.raises(HistoryError):
            decode_local_model(content)
        for packed in (content, content[::-1], encode_queue(ExampleQueue(), "abc")[:20] + content):
            with pytest.raises(HistoryError):
                decode_queue(packed)

    @pytest.mark.parametrize("place", ["target", "label", "weight", "value"])
    def test_number_that_is_not_finite_is_an_error(self, place: str) -> None:
        """It could be learned from, and not be written again."""
        numbers = {"target": 1.0, "label": 1.0, "weight": 1.0, "value": 1.0, place: 1e300 * 1e300}
        row = Example("a", 1, (0,), (numbers["value"],), (), numbers["target"])
        whole = ExampleQueue({}, {}, {"flaky": (LabelledExample(row, numbers["label"], numbers["weight"]),)})
        with pytest.MonkeyPatch.context() as patch:
            dumps = json.dumps
            patch.setattr(json, "dumps", lambda content, **given: dumps(content, **{**given, "allow_nan": True}))
            content = encode_queue(whole, "abc")
        with pytest.raises(HistoryError):
            decode_queue(content)

    def test_what_another_schema_has_learned_is_a_history_error(self) -> None:
        content = json.loads(encode_local_model(LocalModel(), "abc"))
        with pytest.raises(HistoryError, match="another version"):
            decode_local_model(json.dumps({**content, "schema": "0" * 16}).encode())
