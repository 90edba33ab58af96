"""Facts about the features of tests."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.features.test_features import flaky_values, history_columns, rounded, typical_seconds
from fedstep.history.records import BuildRecord
from fedstep.history.summary import Summary, apply_record
from fedstep.history.test_table import NEVER, with_tests
from fedstep.ingest.change_impact import group_of
from fedstep.schema.schema import Raw, schema
from fedstep.types import BuildOutcome, Outcome, TestRun
from tests.helpers.narrow import expect

TASK = schema().tasks["flaky"]


def entry(number: int, runs: tuple[TestRun, ...]) -> BuildRecord:
    at = 1_700_000_000.0 + 600 * number
    return BuildRecord(f"{number:032x}", at, at + 9, 9.0, "unit||mark", BuildOutcome.PASSED, tests=runs)


def history(seed: int, builds: int = 15, tests: int = 8) -> Summary:
    draw, summary = Random(seed), Summary()
    letters = [Outcome(letter) for letter in "pppppfck"]
    for number in range(builds):
        runs = tuple(TestRun(f"a.B{n % 3}Test#t{n}", draw.choice(letters), draw.random()) for n in range(tests))
        summary = apply_record(summary, str(number), entry(number, runs))
    return summary


def part(values: Raw, name: str) -> object:
    return values[name]


class TestNewTests:
    def test_a_test_without_a_past_has_only_its_name(self) -> None:
        (values,) = flaky_values(with_tests({}, ["org.foo.TimeoutTest#waits"]))
        assert part(values, "bias") == 1.0
        assert (part(values, "flipped"), part(values, "classmates-flakes")) == (0.0, 0.0)
        assert part(values, "time-rank") is None
        assert part(values, "source") is None
        names = {TASK.names()[index] for index in TASK.encode(values).indices}
        assert {"bias", "evidence", "name=timeout", "source-words=absent"} <= names

    def test_one_value_a_part_for_each_test(self) -> None:
        table = history(1).tests
        names = {one.name for one in TASK.parts}
        assert all(values.keys() == names for values in flaky_values(table))
        assert len(flaky_values(table)) == len(table)
        assert flaky_values({}) == []

    @settings(deadline=None, max_examples=30)
    @given(st.integers(0, 10**6))
    def test_the_order_of_tests_changes_no_feature(self, seed: int) -> None:
        table = history(seed).tests
        order = list(range(len(table)))
        Random(seed).shuffle(order)
        mixed = {test: table[test] for test in (list(table)[n] for n in order)}
        values, others = flaky_values(table), flaky_values(mixed)
        assert [values[n] for n in order] == others


class TestClassmates:
    @settings(deadline=None, max_examples=30)
    @given(st.integers(0, 10**6))
    def test_classmates_leave_the_test_itself_out(self, seed: int) -> None:
        table = history(seed).tests
        for number, test in enumerate(table):
            before = history_columns(table)["classmates-flip-rate"][number]
            other = replace(table[test], flipped_100=0.0 if table[test].flipped_100 else 1.0)
            alone = {**table, test: other}
            assert history_columns(alone)["classmates-flip-rate"][number] == before
            assert group_of(test).startswith("a.B")

    def test_a_test_alone_in_its_class_has_no_classmates(self) -> None:
        summary = apply_record(
            Summary(), "1", entry(1, (TestRun("a.B#x", Outcome.FLAKED), TestRun("a.C#x", Outcome.PASSED)))
        )
        assert history_columns(summary.tests)["classmates-flip-rate"] == [None, None]
        more = apply_record(summary, "2", entry(2, (TestRun("a.B#y", Outcome.PASSED),)))
        assert history_columns(more.tests)["classmates-flip-rate"] == [0.0, None, 1.0]
        assert [part(values, "classmates-flakes") for values in flaky_values(more.tests)] == [None, 0.0, 0.86]


def timed(*seconds: float) -> list[object]:
    """The time ranks of tests that took so long."""
    runs = tuple(TestRun(f"a.B#t{n}", Outcome.PASSED, value) for n, value in enumerate(seconds))
    return [part(values, "time-rank") for values in flaky_values(apply_record(Summary(), "1", entry(1, runs)).tests)]


class TestValues:
    def test_values_are_rounded_so_that_no_row_is_a_fingerprint(self) -> None:
        """Values have three digits, so that no row is a fingerprint."""
        for values in flaky_values(history(3).tests):
            assert all(value == rounded(value) for value in values.values() if isinstance(value, float))

    def test_a_rate_counts_recent_runs_more(self) -> None:
        def rate(letters: str) -> float:
            summary = Summary()
            for number, letter in enumerate(letters):
                summary = apply_record(summary, str(number), entry(number, (TestRun("a.B#x", Outcome(letter)),)))
            return expect(float, history_columns(summary.tests)["failure-rate-5"][0])

        assert rate("ppppc") > rate("cpppp") > 0.0
        assert rate("ccccc") == 1.0

    def test_a_time_is_ranked_among_those_of_the_project(self) -> None:
        assert timed(0.01, 5.0, 0.3, 60.0) == [-0.75, 0.25, -0.25, 0.75]
        assert timed(1.0, 1.0, 1.0) == [0.0, 0.0, 0.0]
        assert timed(0.01, float("nan"), 5.0) == [-0.5, None, 0.5]

    @given(st.lists(st.integers(0, 12), max_size=30), st.integers(1, 5))
    def test_a_slower_machine_changes_no_rank(self, doublings: list[int], slower: int) -> None:
        ranks = timed(*(0.002 * 2**n for n in doublings))
        assert ranks == timed(*(0.002 * 2 ** (n + slower) for n in doublings))
        assert sum(ranks) == pytest.approx(0.0, abs=0.01 * len(ranks))  # type: ignore[arg-type]


class TestNames:
    def test_no_coordinate_is_named_after_a_project(self) -> None:
        private = with_tests({}, ["com.zyxcorp.SecretzyxTest#qqzyx"])
        (values,) = flaky_values(private)
        names = [TASK.names()[index] for index in TASK.encode(values).indices]
        assert not [name for name in names if "zyx" in name]
        assert not [name for task in schema().tasks.values() for name in task.names() if "zyx" in name]

    def test_only_evidence_depends_on_the_tests_own_outcomes(self) -> None:
        """Of a test that was seen to flip nothing but its evidence and its words is a feature."""
        for stats, values in zip(history(4).tests.values(), flaky_values(history(4).tests), strict=True):
            others = [values[name] for name in ("time-rank", "doubted", "classmates-flakes", "project-flips")]
            assert (others == [None] * 4) == (stats.flips > 0)

    def test_typical_seconds_are_none_where_no_report_gave_one(self) -> None:
        table = apply_record(
            Summary(), "1", entry(1, (TestRun("a#x", Outcome.PASSED), TestRun("a#y", Outcome.PASSED, 2.0)))
        ).tests
        assert typical_seconds(table["a#x"]) is None
        assert typical_seconds(table["a#y"]) == pytest.approx(2.0, rel=1e-3)
        assert [stats.last_flip for stats in table.values()] == [NEVER, NEVER]
