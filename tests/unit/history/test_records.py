"""Facts about records: what goes in comes out, and what is damaged is refused."""

import json
import math
import subprocess
import sys
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.errors import HistoryError
from fedstep.history.records import NO_FORECAST, BuildRecord, Example, Forecast, decode_record, encode_record
from fedstep.types import BuildOutcome, FileChange, LeftOut, Outcome, TestRun

texts = st.text(max_size=20)
times = st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000)
seconds = st.integers(0, 10**8).map(lambda ms: ms / 1000) | st.just(math.nan)
unit = st.floats(-5, 5).map(lambda value: round(value, 6))
rows = st.builds(
    Example,
    subject=texts,
    run=st.integers(0, 10**6),
    indices=st.lists(st.integers(0, 4000), max_size=4).map(tuple),
    values=st.lists(unit, max_size=4).map(tuple),
    private=st.lists(texts, max_size=2).map(tuple),
    target=unit | st.just(math.nan),
)
entries = st.builds(
    BuildRecord,
    name=texts,
    started_at=times,
    finished_at=times,
    seconds=seconds,
    stream=texts,
    outcome=st.sampled_from(BuildOutcome),
    branch=texts,
    author=texts,
    commit=texts,
    change_known=st.booleans(),
    files=st.lists(st.builds(FileChange, texts, st.integers(0, 99), st.integers(0, 99), texts), max_size=3).map(tuple),
    tests=st.lists(
        st.builds(
            TestRun,
            texts,
            st.sampled_from(Outcome),
            seconds,
            texts,
            st.just(""),
            st.just(0),
            st.just(""),
            st.just(0),
            st.just(""),
            texts,
        ),
        max_size=5,
        unique_by=lambda run: run.test,
    ).map(tuple),
    source_words=st.dictionaries(texts, st.lists(texts, max_size=2).map(tuple), max_size=2),
    schema=texts,
    number=st.none() | st.integers(0, 10**9),
    rows=st.dictionaries(texts, st.lists(rows, max_size=3).map(tuple), max_size=2),
    forecast=st.just(NO_FORECAST)
    | st.builds(
        Forecast,
        *[seconds] * 5,
        st.dictionaries(texts, st.floats(0, 1).map(lambda chance: round(chance, 6)), max_size=2),
        st.integers(0, 99),
        st.just(math.nan) | st.floats(0, 1).map(lambda share: round(share, 4)),
        st.lists(texts, max_size=2).map(tuple),
    ),
    left_out=st.none()
    | st.builds(
        LeftOut,
        st.lists(texts, max_size=3).map(tuple),
        st.floats(0, 1e6).map(lambda seconds: round(seconds, 3)),
        st.booleans(),
    ),
    missed=unit | st.just(math.nan),
    origins=st.lists(texts, min_size=5, max_size=5).map(tuple),
).map(lambda record: record._replace(origins=record.origins[: len(record.tests)]))
WHOLE = BuildRecord(
    name="ab" * 16,
    started_at=1_700_000_000.5,
    finished_at=1_700_000_060.5,
    seconds=60.0,
    stream="unit||mark",
    outcome=BuildOutcome.FAILED,
    change_known=True,
    files=(FileChange("src/a.py", 3, 1, "src/b.py"),),
    tests=(
        TestRun("a#passes", Outcome.PASSED, 0.25),
        TestRun("a#fails", Outcome.CONFIRMED, math.nan, "builtins.KeyError"),
    ),
    source_words={"a#passes": ("sleep", "wait")},
    schema="0123456789abcdef",
    rows={"flaky": (Example("a#passes", 4, (0, 7), (1.0, 0.5), ("test=a#passes",)),)},
    forecast=Forecast(55.0, 40.0, 90.0, math.nan, 0.25, {"a#fails": 0.75}, 3),
    missed=-0.25,
)


def same(one: BuildRecord, other: BuildRecord) -> bool:
    """Equality in which an unknown time equals an unknown time: NaN prints as it is."""
    return repr(one) == repr(other)


def refused(packed: bytes) -> bool:
    try:
        assert isinstance(decode_record(packed), BuildRecord)
    except HistoryError:
        return True
    return False


def packed_with(**changes: object) -> bytes:
    return zlib.compress(json.dumps({**json.loads(zlib.decompress(encode_record(WHOLE))), **changes}).encode())


class TestEncoding:
    def test_a_record_comes_back_whole(self) -> None:
        assert same(decode_record(encode_record(WHOLE)), WHOLE)

    def test_a_record_of_before_has_no_forecast(self) -> None:
        """Older records lack the key, and an older fedstep finds all that it reads in a newer record."""
        fields = json.loads(zlib.decompress(encode_record(WHOLE)))
        del fields["forecast"]
        assert decode_record(zlib.compress(json.dumps(fields).encode())) == decode_record(
            encode_record(WHOLE)
        )._replace(forecast=NO_FORECAST)
        assert "forecast" not in json.loads(zlib.decompress(encode_record(WHOLE._replace(forecast=NO_FORECAST))))

    def test_a_record_of_before_missed_nothing_known(self) -> None:
        """Older records lack what the estimates missed, and one without an estimate does not have it."""
        fields = json.loads(zlib.decompress(encode_record(WHOLE)))
        del fields["missed"]
        assert math.isnan(decode_record(zlib.compress(json.dumps(fields).encode())).missed)
        assert "missed" not in json.loads(zlib.decompress(encode_record(WHOLE._replace(missed=math.nan))))

    def test_the_number_of_a_run_is_kept_and_may_be_missing(self) -> None:
        """A record keeps the number of its run; older records lack the key, and an absurd one is refused."""
        numbered = WHOLE._replace(number=41)
        assert decode_record(encode_record(numbered)).number == 41
        fields = json.loads(zlib.decompress(encode_record(numbered)))
        del fields["number"]
        assert decode_record(zlib.compress(json.dumps(fields).encode())).number is None
        assert refused(packed_with(number=10**300))
        assert refused(packed_with(number=-1))

    @settings(max_examples=40, deadline=None)
    @given(entries)
    def test_entry_round_trips_and_its_bytes_are_stable(self, entry: BuildRecord) -> None:
        """Every entry comes back, and the same entry gives the same bytes."""
        assert same(decode_record(encode_record(entry)), entry)
        assert encode_record(decode_record(encode_record(entry))) == encode_record(entry)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


class TestFailureTexts:
    def test_a_message_is_never_stored_and_a_signature_is(self) -> None:
        """A history on a git ref is read by everybody who can clone; a hash tells no secret of a message."""
        run = TestRun("a#x", Outcome.FAILED, message="password is hunter2", signature="0123456789abcdef")
        packed = encode_record(WHOLE._replace(tests=(run,)))
        assert b"hunter2" not in zlib.decompress(packed)
        (back,) = decode_record(packed).tests
        assert (back.message, back.signature) == ("", "0123456789abcdef")


class TestDamage:
    @given(st.binary(max_size=200))
    def test_any_bytes_are_an_entry_or_a_history_error(self, packed: bytes) -> None:
        refused(packed)
        refused(zlib.compress(packed))

    @given(st.sampled_from(sorted(json.loads(zlib.decompress(encode_record(WHOLE))))), json_values)
    def test_field_of_any_kind_is_an_entry_or_a_history_error(self, field: str, value: object) -> None:
        """A field of any other kind is an entry or a history error."""
        refused(packed_with(**{field: value}))

    @pytest.mark.parametrize(
        "changes",
        [
            {"tests": [1, 2]},
            {"outcomes": "p"},
            {"outcomes": "p?"},
            {"started_at": math.nan},
            {"finished_at": math.inf},
            {"seconds": math.inf},
            {"files": ["abcd"]},
            {"files": [["a", "b", 0, ""]]},
            {"format": 99},
            {"rows": {"flaky": [["t", 1, ["x"], [1.0], [], None]]}},
        ],
    )
    def test_field_that_would_fail_later_is_refused_on_reading(self, changes: dict[str, object]) -> None:
        """A field that would fail in later code is refused when the record is read."""
        assert refused(packed_with(**changes))

    def test_deep_nesting_is_refused(self) -> None:
        assert refused(zlib.compress(b"[" * 200_000))

    @given(st.data())
    def test_a_record_cut_anywhere_is_refused(self, data: st.DataObject) -> None:
        packed = encode_record(WHOLE)
        assert refused(packed[: data.draw(st.integers(0, len(packed) - 1))])

    @given(st.data())
    def test_a_flipped_bit_is_refused_or_changes_nothing(self, data: st.DataObject) -> None:
        packed = bytearray(encode_record(WHOLE))
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        assert refused(bytes(packed)) or same(decode_record(bytes(packed)), WHOLE)

    @pytest.mark.slow
    def test_a_bomb_is_refused_in_bounded_memory(self) -> None:
        program = """
import resource, sys
from fedstep.errors import HistoryError
from fedstep.history.records import decode_record
bomb = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_record(bomb)
except HistoryError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
        squeeze = zlib.compressobj()
        bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(240)) + squeeze.flush()
        done = subprocess.run([sys.executable, "-c", program], input=bomb, capture_output=True, check=True)
        unit = 1 if sys.platform == "darwin" else 1024
        assert int(done.stdout) * unit < 160 << 20


class TestPrecision:
    def test_times_have_milliseconds_and_values_six_digits(self) -> None:
        """A time is kept to the millisecond and a value to six digits."""
        row = Example("t", 0, (1,), (1 / 3,), (), 2 / 3)
        kept = decode_record(
            encode_record(WHOLE._replace(tests=(TestRun("t", Outcome.PASSED, 0.0014),), rows={"triage": (row,)}))
        )
        assert kept.tests[0].seconds == 0.001
        assert kept.rows["triage"][0] == Example("t", 0, (1,), (0.333333,), (), 0.666667)
